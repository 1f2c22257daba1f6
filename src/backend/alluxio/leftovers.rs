//! What was begun and has no end: files that a writer gave up, and those that a killed process left incomplete. Nobody
//! else removes them: the master keeps an incomplete file for ever.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use uuid::Uuid;

use super::Shared;
use super::error::is_away;
use super::incomplete::IncompleteFile;
use super::journal::Record;
use super::journal::cluster;
use super::journal::left;
use super::master::Master;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;

/// How far the clocks of this host and of the master may differ.
const CLOCKS: Duration = Duration::from_secs(60);

/// The longest pause before a removal is tried once more, in longest pauses between attempts of one call, one of which is the
/// first.
const PAUSES: u32 = 10;

/// Removes what processes that have ended left incomplete in this cluster.
pub(super) async fn clean_up(shared: Arc<Shared>, dir: PathBuf) {
    let journals = match left(&dir, &cluster(&shared.options)) {
        Ok(journals) => journals,
        Err(err) => return log::warn!("{} cannot be searched: {err}", dir.display()),
    };
    for journal in journals {
        let mut all = true;
        for (id, record) in &journal.files {
            let mut removed = remove_left(&shared.master, *id, record).await;
            if removed.as_ref().is_err_and(may_pass) {
                // A worker may not have noticed yet that the process is gone.
                sleep(shared.options.rpc_retry.max).await;
                removed = remove_left(&shared.master, *id, record).await;
            }
            match removed {
                Ok(Some(path)) => log::info!("removed {path}, left incomplete by a process that was killed"),
                Ok(None) => {}
                Err(err) => {
                    log::warn!("a file that was left incomplete stays so, {record:?}: {err}");
                    all = false;
                }
            }
        }
        if all && let Err(err) = std::fs::remove_file(&journal.path) {
            log::warn!("{} stays behind: {err}", journal.path.display());
        }
    }
}

async fn remove_left(master: &Master, id: Uuid, record: &Record) -> Result<Option<FsPath>> {
    let file_id = match record {
        Record::Made(file_id) => *file_id,
        Record::Asked { path, ms } => match made(master, id, path, *ms).await {
            Ok(Some(file_id)) => file_id,
            Ok(None) => return Ok(None),
            Err(err) => match err.fault() {
                Fault::Exists | Fault::NotFound | Fault::NotDirectory | Fault::PermissionDenied => {
                    return Ok(None);
                }
                _ => return Err(err),
            },
        },
    };
    remove_incomplete(master, file_id).await
}

/// What the request `id` for a file at `path`, sent at the time `asked_ms`, has made, if that is still there.
async fn made(master: &Master, id: Uuid, path: &FsPath, asked_ms: Option<i64>) -> Result<Option<i64>> {
    // Before the request is repeated: where the master knows of no file it would make one, also over one that is only in the
    // under store.
    let there = master.known_status(path).await?;
    // The master goes by the request's number alone, also if what was made then has been replaced by now.
    let slack = CLOCKS + master.retry_times().total;
    let then =
        asked_ms.is_none_or(|ms| u128::from(there.creation_time_ms().abs_diff(ms)) <= slack.as_millis());
    if there.folder() || there.completed() || !there.block_ids.is_empty() || !then {
        return Ok(None);
    }
    // The master remembers what it has done: if that was this request, it answers with the file, and if not, it refuses.
    let made = master.create_again(path, id).await?;
    Ok((made.file_id() == there.file_id()).then(|| made.file_id()))
}

/// A file that nobody wants any more.
pub(super) enum Unwanted {
    /// One that was not completed.
    Incomplete(IncompleteFile),
    /// What was to take the place of another, by its path.
    Beside(FsPath),
}

impl Unwanted {
    /// Removes it, if that fails for now later.
    pub(super) async fn remove(self, shared: &Arc<Shared>) {
        match self.try_remove(shared).await {
            Ok(()) => {}
            Err(err) if may_pass(&err) => {
                log::warn!("{} stays for now: {err}", self.path());
                self.remove_later(shared);
            }
            Err(err) => log::warn!("{} is left behind: {err}", self.path()),
        }
    }

    /// Tries until it is removed, or leaves it to the next process if the mount ends before.
    pub(super) fn remove_later(self, shared: &Arc<Shared>) {
        let mut pause = shared.options.rpc_retry.max;
        let longest = pause * PAUSES;
        // Not kept alive by this.
        let mount = Arc::downgrade(shared);
        shared.bridge.spawn(async move {
            loop {
                sleep(pause).await;
                pause = longest.min(pause * 2);
                let Some(shared) = mount.upgrade() else { return };
                match self.try_remove(&shared).await {
                    Ok(()) => return log::info!("{} is removed", self.path()),
                    Err(err) if may_pass(&err) => log::debug!("{} stays: {err}", self.path()),
                    Err(err) => return log::warn!("{} is left behind: {err}", self.path()),
                }
            }
        });
    }

    async fn try_remove(&self, shared: &Shared) -> Result<()> {
        match self {
            Self::Incomplete(file) => {
                remove_incomplete(&shared.master, file.file_id()).await?;
                file.ended();
                Ok(())
            }
            Self::Beside(path) => match shared.remove(path, false).await {
                Err(err) if err.fault() == Fault::NotFound => Ok(()),
                result => result,
            },
        }
    }

    fn path(&self) -> &FsPath {
        match self {
            Self::Incomplete(file) => file.path(),
            Self::Beside(path) => path,
        }
    }
}

/// Whether a removal that failed so may do better later: the master was away, or could not remove what the under store has.
pub(super) fn may_pass(err: &FsError) -> bool {
    is_away(err) || err.fault() == Fault::Io
}

/// Removes the file `file_id` if it is still incomplete, wherever it is by now, or has not taken the place that it was made
/// for. Says where that was.
pub(super) async fn remove_incomplete(master: &Master, file_id: i64) -> Result<Option<FsPath>> {
    let path = match master.path_of(file_id).await {
        Err(err) if err.fault() == Fault::Stale => return Ok(None),
        result => result?,
    };
    let removed = match master.known_status(&path).await {
        Ok(info)
            if info.file_id() == file_id && !info.folder() && (!info.completed() || path.is_beside()) =>
        {
            master.remove(&path).await
        }
        Ok(_) => return Ok(None),
        Err(err) => Err(err),
    };
    match removed {
        Err(err) if err.fault() == Fault::NotFound => Ok(None),
        result => result.map(|()| Some(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::super::AlluxioFs;
    use super::super::fake_server::FakeServer;
    use super::super::fake_server::Reply;
    use super::super::options::AlluxioOptions;
    use super::super::options::RetryTimes;
    use super::super::proto::grpc::file::CreateFilePResponse;
    use super::super::proto::grpc::file::DeletePResponse;
    use super::super::proto::grpc::file::FileInfo;
    use super::super::proto::grpc::file::GetFilePathPResponse;
    use super::super::proto::grpc::file::GetStatusPResponse;
    use super::*;
    use crate::fs::Ctx;
    use crate::fs::FileSystem;

    const ASKED_MS: i64 = 1_000_000_000;

    /// What the master is asked to do about `/f`, which it has been asked for at [`ASKED_MS`], where `there` is.
    async fn asked_about(there: Option<FileInfo>) -> Vec<String> {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        let server = FakeServer::start(move |call, _| {
            seen.lock().push(call.to_owned());
            let there = there.clone();
            match call {
                "GetStatus" if there.is_none() => Reply::Failure(tonic::Code::NotFound),
                "GetStatus" => Reply::message(&GetStatusPResponse { file_info: there }),
                "CreateFile" => Reply::message(&CreateFilePResponse { file_info: there.or(Some(file(0))) }),
                "GetFilePath" => Reply::message(&GetFilePathPResponse { path: Some("/f".to_owned()) }),
                "Remove" => Reply::message(&DeletePResponse {}),
                other => panic!("{other}"),
            }
        });
        let master = Master::new(Arc::new(server.options())).unwrap();
        let record = Record::Asked { path: FsPath::parse("/f").unwrap(), ms: Some(ASKED_MS) };
        remove_left(&master, Uuid::new_v4(), &record).await.unwrap();
        let calls = calls.lock();
        calls.clone()
    }

    /// An incomplete file that was made `later_ms` after it was asked for.
    fn file(later_ms: i64) -> FileInfo {
        let creation_time_ms = Some(ASKED_MS + later_ms);
        FileInfo { file_id: Some(7), creation_time_ms, ..FileInfo::default() }
    }

    #[tokio::test]
    async fn what_was_asked_for_and_is_incomplete_goes() {
        let calls = asked_about(Some(file(20))).await;
        assert_eq!(calls, ["GetStatus", "CreateFile", "GetFilePath", "GetStatus", "Remove"]);
    }

    #[tokio::test]
    async fn where_the_file_that_was_asked_for_is_not_nothing_is_made_or_removed() {
        let complete = FileInfo { completed: Some(true), ..file(20) };
        let folder = FileInfo { folder: Some(true), ..file(20) };
        let begun = FileInfo { block_ids: vec![5], ..file(20) };
        for there in [None, Some(complete), Some(folder), Some(begun), Some(file(3_600_000))] {
            assert_eq!(asked_about(there.clone()).await, ["GetStatus"], "{there:?}");
        }
    }

    /// A client of a master that fails the first `failures` calls with `code`, and then answers with the incomplete file `/f`;
    /// which calls were answered.
    fn failing(failures: usize, code: tonic::Code) -> (FakeServer, Arc<Shared>, mpsc::Receiver<String>) {
        let (left, (answered, calls)) = (Mutex::new(failures), mpsc::channel());
        let server = FakeServer::start(move |call, _| {
            let mut left = left.lock();
            if *left > 0 {
                *left -= 1;
                return Reply::Failure(code);
            }
            answered.send(call.to_owned()).unwrap();
            match call {
                "GetFilePath" => Reply::message(&GetFilePathPResponse { path: Some("/f".to_owned()) }),
                "GetStatus" => Reply::message(&GetStatusPResponse { file_info: Some(file(0)) }),
                "Remove" => Reply::message(&DeletePResponse {}),
                other => panic!("{other}"),
            }
        });
        // One attempt a call.
        let times = RetryTimes { total: Duration::ZERO, ..server.options().rpc_retry };
        let shared = Shared::new(AlluxioOptions { rpc_retry: times, ..server.options() });
        (server, Arc::new(shared.unwrap()), calls)
    }

    fn next<const N: usize>(calls: &mpsc::Receiver<String>) -> [String; N] {
        std::array::from_fn(|_| calls.recv_timeout(Duration::from_secs(20)).unwrap())
    }

    #[test]
    fn what_cannot_be_removed_while_the_master_is_away_goes_when_it_is_back() {
        let (_server, shared, calls) = failing(3, tonic::Code::Unavailable);
        shared.bridge.handle().block_on(incomplete().remove(&shared));
        assert_eq!(next(&calls), ["GetFilePath", "GetStatus", "Remove"]);

        let (_server, shared, calls) = failing(3, tonic::Code::Unavailable);
        let beside = FsPath::parse("/f").unwrap().beside().unwrap();
        let fs = AlluxioFs { shared };
        assert!(fs.remove_file(&Ctx::daemon(), &beside).is_err());
        assert_eq!(next(&calls), ["GetStatus", "Remove"]);
    }

    #[test]
    fn what_the_under_store_does_not_remove_now_is_removed_later() {
        // Which is DATA_LOSS here, as the text that tells it from a directory that is not empty is the server's.
        let (_server, shared, calls) = failing(1, tonic::Code::DataLoss);
        shared.bridge.handle().block_on(incomplete().remove(&shared));
        assert_eq!(next(&calls), ["GetFilePath", "GetStatus", "Remove"]);
    }

    fn incomplete() -> Unwanted {
        Unwanted::Incomplete(IncompleteFile::created(FsPath::parse("/f").unwrap(), &file(0), None))
    }
}
