//! What was begun and has no end: files that a writer gave up, and those that a killed process left incomplete. Nobody
//! else removes them: the master keeps an incomplete file for ever.

use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::Shared;
use super::journal::Record;
use super::journal::cluster;
use super::journal::left;
use super::master::Master;
use super::master::Removal;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Result;

/// Removes what processes that have ended left incomplete in this cluster.
pub(super) async fn clean_up(shared: Arc<Shared>, dir: PathBuf) {
    let journals = match left(&dir, &cluster(&shared.options)) {
        Ok(journals) => journals,
        Err(err) => return log::warn!("{} cannot be searched: {err}", dir.display()),
    };
    for journal in journals {
        let mut all = true;
        for (id, record) in &journal.files {
            match remove_left(&shared.master, *id, record).await {
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
        // The master remembers what it has done: if that was this request, it answers with the file, and if not, makes
        // one. Where another file is, it refuses.
        Record::Asked(path) => match master.create_again(path, id).await {
            Ok(info) if !info.completed() => info.file_id(),
            Ok(_) => return Ok(None),
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
            master.remove(&path, Removal::One).await
        }
        Ok(_) => return Ok(None),
        Err(err) => Err(err),
    };
    match removed {
        Err(err) if err.fault() == Fault::NotFound => Ok(None),
        result => result.map(|()| Some(path)),
    }
}
