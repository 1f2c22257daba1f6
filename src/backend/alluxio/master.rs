//! The calls to the primary master, each with its traps kept out.
//!
//! A call is made again, by the retry properties, when the connection broke or the master is not the primary any
//! more. What changes something carries an operation id that stays the same through its repeats, by which the
//! master knows what it has done already. The one call without that, for a new block, is
//! in `incomplete.rs`.
//!
//! A master that was killed may know it wrongly: it journals one change in several entries, the first of which has the
//! operation id already, and after a restart, or to the master that takes over, a change of which only that entry was
//! written counts as done. So what was sent once more is looked at afterwards, and made under another id if it is not there.
//!
//! Paths are those in Alluxio, below whatever is the root of the mount.

use std::fmt::Debug;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::transport::Channel;
use uuid::Uuid;

use super::MISREAD;
use super::call_options::operation_id;
use super::call_options::uuid;
use super::connection::ChannelId;
use super::connection::Server;
use super::connection::UNAUTHENTICATED_MAX;
use super::connection::within;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::incomplete::IncompleteFile;
use super::journal;
use super::journal::Journal;
use super::known::Changes;
use super::options::AlluxioOptions;
use super::options::PathOptions;
use super::options::PathTable;
use super::options::RetryTimes;
use super::primary::Primary;
use super::proto::grpc::Bits;
use super::proto::grpc::BlockInfo;
use super::proto::grpc::PMode;
use super::proto::grpc::block::BlockMasterInfo;
use super::proto::grpc::block::GetBlockInfoPRequest;
use super::proto::grpc::block::GetBlockMasterInfoPOptions;
use super::proto::grpc::block::GetWorkerInfoListPOptions;
use super::proto::grpc::block::WorkerInfo;
use super::proto::grpc::block::block_master_client_service_client::BlockMasterClientServiceClient;
use super::proto::grpc::file::CheckAccessPOptions;
use super::proto::grpc::file::CheckAccessPRequest;
use super::proto::grpc::file::CompleteFilePOptions;
use super::proto::grpc::file::CompleteFilePRequest;
use super::proto::grpc::file::CreateDirectoryPOptions;
use super::proto::grpc::file::CreateDirectoryPRequest;
use super::proto::grpc::file::CreateFilePOptions;
use super::proto::grpc::file::CreateFilePRequest;
use super::proto::grpc::file::DeletePOptions;
use super::proto::grpc::file::DeletePRequest;
use super::proto::grpc::file::FileInfo;
use super::proto::grpc::file::FileSystemMasterCommonPOptions;
use super::proto::grpc::file::FsOpPId;
use super::proto::grpc::file::GetFilePathPRequest;
use super::proto::grpc::file::GetNewBlockIdForFilePOptions;
use super::proto::grpc::file::GetNewBlockIdForFilePRequest;
use super::proto::grpc::file::GetStatusPOptions;
use super::proto::grpc::file::GetStatusPRequest;
use super::proto::grpc::file::ListStatusPartialPOptions;
use super::proto::grpc::file::ListStatusPartialPRequest;
use super::proto::grpc::file::LoadMetadataPType;
use super::proto::grpc::file::RenamePOptions;
use super::proto::grpc::file::RenamePRequest;
use super::proto::grpc::file::S3SyntaxOptions;
use super::proto::grpc::file::SetAttributePOptions;
use super::proto::grpc::file::SetAttributePRequest;
use super::proto::grpc::file::XAttrUpdateStrategy;
use super::proto::grpc::file::file_system_master_client_service_client::FileSystemMasterClientServiceClient;
use super::proto::grpc::file::list_status_partial_p_options::OffsetType;
use super::proto::grpc::meta::GetMasterInfoPOptions;
use super::proto::grpc::meta::MasterInfo;
use super::proto::grpc::meta::meta_master_client_service_client::MetaMasterClientServiceClient;
use super::retry::Backoff;
use super::settings::Settings;
use super::times::Xattrs;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::Timestamp;
use crate::metrics;
use crate::metrics::Calls;
use crate::metrics::Counter;
use crate::waiting;

/// A master that fails this often in a row, in the way it does when a change gets in between, has another reason.
const RACED_MAX: u32 = 8;

/// What the block master is asked about, for messages.
const CAPACITY: &str = "of the cluster";

type FileClient = FileSystemMasterClientServiceClient<Channel>;
type BlockClient = BlockMasterClientServiceClient<Channel>;

/// What a rename does to a destination that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// Nothing: the call fails.
    Keep,
    /// It is replaced by the file of this number. It must be known not to be a directory, as a directory would go with all
    /// that is in it.
    ReplacedBy(i64),
}

/// One attribute to change. Owner and group are separate calls: together they must match in the master's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Mode(u32),
    Owner(String),
    Group(String),
}

/// What the under file system has of a file that was written through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UfsEnd {
    pub(super) length: u64,
    pub(super) content_hash: Option<String>,
}

/// A part of a listing, in the order of names.
pub(super) struct Listed {
    pub(super) entries: Vec<FileInfo>,
    /// Whether there are entries after these.
    pub(super) more: bool,
}

/// The master as one, whichever of them serves.
pub(super) struct Master {
    options: Arc<AlluxioOptions>,
    /// The options of paths in force.
    paths: ArcSwap<PathTable>,
    primary: Primary,
    /// What is being written; none where there is no place for it.
    journal: Option<Arc<Journal>>,
    calls: Counter,
    changes: Changes,
}

impl Master {
    /// Not connected yet. Must be called inside the runtime.
    pub(super) fn new(options: Arc<AlluxioOptions>) -> Result<Self> {
        let primary = Primary::new(Arc::clone(&options))?;
        let paths = ArcSwap::from_pointee(options.paths.clone());
        let (calls, changes) = (Counter::default(), Changes::default());
        Ok(Self { primary, paths, journal: None, calls, changes, options })
    }

    /// The same, for who writes files: they are noted in a journal while they are incomplete.
    pub(super) fn with_journal(self) -> Self {
        Self { journal: journal::open(&self.options), ..self }
    }

    /// Calls made so far, repeated ones each time.
    pub(super) fn calls(&self) -> u64 {
        self.calls.value()
    }

    /// What this client changes.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The options for `path`, as of now.
    pub(super) fn at(&self, path: &FsPath) -> Arc<PathOptions> {
        Arc::clone(self.paths.load().at(path))
    }

    /// Other options for paths from now on.
    pub(super) fn set_paths(&self, paths: PathTable) {
        self.paths.store(Arc::new(paths));
    }

    /// The master to ask, for calls that are made elsewhere.
    pub(super) fn primary(&self) -> &Primary {
        &self.primary
    }

    /// Longest wait for one answer.
    pub(super) fn rpc_timeout(&self) -> Duration {
        self.options.rpc_timeout
    }

    /// How often and how long to repeat calls.
    pub(super) fn retry_times(&self) -> RetryTimes {
        self.options.rpc_retry
    }

    /// What is at `path`. Does not count as an access.
    pub(super) async fn get_status(&self, path: &FsPath) -> Result<FileInfo> {
        self.status(path, self.at(path).status(false)).await
    }

    /// What is at `path`, which is about to be read: the access time moves, unless that is switched off.
    pub(super) async fn open_status(&self, path: &FsPath) -> Result<FileInfo> {
        let at = self.at(path);
        let options = at.status(!at.access_time_disabled);
        self.status(path, GetStatusPOptions { access_mode: Some(Bits::Read.into()), ..options }).await
    }

    /// What the master itself knows of `path`, without a look into the under file system.
    pub(super) async fn known_status(&self, path: &FsPath) -> Result<FileInfo> {
        let at = self.at(path);
        let common = FileSystemMasterCommonPOptions { sync_interval_ms: Some(-1), ..at.loading() };
        let options = GetStatusPOptions {
            load_metadata_type: Some(LoadMetadataPType::Never.into()),
            common_options: Some(common),
            ..at.status(false)
        };
        self.status(path, options).await
    }

    /// What is at `path` once the master has compared it with the under file system.
    pub(super) async fn synced_status(&self, path: &FsPath) -> Result<FileInfo> {
        let options = self.at(path).status(false);
        let common = FileSystemMasterCommonPOptions {
            sync_interval_ms: Some(0),
            ..options.common_options.unwrap_or_default()
        };
        self.status(path, GetStatusPOptions { common_options: Some(common), ..options }).await
    }

    async fn status(&self, path: &FsPath, options: GetStatusPOptions) -> Result<FileInfo> {
        let message = GetStatusPRequest { path: text(path), options: Some(options) };
        let answer = self
            .call(Rpc::GetStatus, path, message, |channel, request| async move {
                self.files(channel).get_status(request).await
            })
            .await?;
        answer.file_info.ok_or_else(|| incomplete_answer(Rpc::GetStatus, path))
    }

    /// Where the file with the number `file_id` is now; [`Fault::Stale`] once it was removed or replaced.
    pub(super) async fn path_of(&self, file_id: i64) -> Result<FsPath> {
        let message = GetFilePathPRequest { file_id: Some(file_id) };
        let subject = format!("of file {file_id}");
        let answer = self
            .call(Rpc::GetFilePath, &subject, message, |channel, request| async move {
                self.files(channel).get_file_path(request).await
            })
            .await?;
        match answer.path {
            Some(path) => FsPath::parse(&path),
            None => Err(incomplete_answer(Rpc::GetFilePath, &subject)),
        }
    }

    /// At most `most` entries of `path`, in the order of names, those after the name `after` if one is given, be it
    /// still there or not; if `path` is a file, the file itself.
    pub(super) async fn list_status(&self, path: &FsPath, after: Option<&str>, most: i32) -> Result<Listed> {
        let partial = ListStatusPartialPOptions {
            options: Some(self.at(path).listing()),
            batch_size: Some(most),
            prefix: None,
            offset_type: after.map(|name| OffsetType::StartAfter(name.to_owned())),
        };
        let message = ListStatusPartialPRequest { path: text(path), options: Some(partial) };
        let answer = self
            .call(Rpc::ListStatus, path, message, |channel, request| async move {
                self.files(channel).list_status_partial(request).await
            })
            .await?;
        Ok(Listed { more: answer.is_truncated(), entries: answer.file_infos })
    }

    /// A new file with the permission bits `mode`, to be written by the one who gets the answer, by the options `at`.
    pub(super) async fn create_file(
        &self,
        path: &FsPath,
        at: &PathOptions,
        mode: u32,
        overwrite: bool,
    ) -> Result<(IncompleteFile, FileInfo)> {
        loop {
            let common = at.creating(self.operation_id());
            let entry = match (&self.journal, &common.operation_id) {
                (Some(journal), Some(id)) => Some(journal.begin(uuid(id), path, Timestamp::now())),
                _ => None,
            };
            let doubtful = AtomicBool::new(false);
            let made = self.make_file(path, at, mode, overwrite, common, &doubtful).await;
            match (&made, &entry) {
                (Ok(info), Some(entry)) => entry.made(info.file_id()),
                (Err(failure), Some(entry)) if !failure.is_ambiguous() => entry.done(),
                _ => {}
            }
            // A master that takes it for made looks for what it has not made.
            if doubtful.into_inner()
                && made.as_ref().is_err_and(|failure| failure.error.fault() == Fault::NotFound)
            {
                half_done(Rpc::CreateFile, path);
                continue;
            }
            let info = made?;
            return Ok((IncompleteFile::created(path.clone(), &info, entry), info));
        }
    }

    /// The request `id` for a new file at `path`, once more: what came of it, or a new file, or [`Fault::Exists`].
    pub(super) async fn create_again(&self, path: &FsPath, id: Uuid) -> Result<FileInfo> {
        let at = self.at(path);
        let common = at.creating(Some(operation_id(id)));
        Ok(self.make_file(path, &at, 0o600, false, common, &AtomicBool::default()).await?)
    }

    async fn make_file(
        &self,
        path: &FsPath,
        at: &PathOptions,
        mode: u32,
        overwrite: bool,
        common: FileSystemMasterCommonPOptions,
        doubtful: &AtomicBool,
    ) -> Result<FileInfo, Failure> {
        let options = CreateFilePOptions {
            block_size_bytes: Some(i64::try_from(at.block_size).unwrap_or(i64::MAX)),
            recursive: Some(false),
            mode: Some(permissions(mode)),
            replication_max: Some(at.replication_max),
            replication_min: Some(at.replication_min),
            replication_durable: Some(at.replication_durable),
            write_tier: Some(at.write_tier),
            write_type: Some(at.sent_write_type().into()),
            common_options: Some(common),
            persistence_wait_time: Some(at.persistence_wait_ms()),
            overwrite: overwrite.then_some(true),
            worker_location: None,
        };
        let message = CreateFilePRequest { path: text(path), options: Some(options) };
        let send = |channel, request| async move { self.files(channel).create_file(request).await };
        let answer = self.try_call(Rpc::CreateFile, path, message, send, doubtful).await?;
        let info = answer.file_info.ok_or_else(|| incomplete_answer(Rpc::CreateFile, path))?;
        // A request that is repeated is answered with whatever is there by then.
        if info.folder() || info.completed() || !info.block_ids.is_empty() {
            let detail = format!("{path} was made here, and is somebody else's by now");
            return Err(FsError::because(Fault::Exists, detail).into());
        }
        Ok(info)
    }

    /// One attempt to get a block id for a file that is known to be ours and incomplete: the call appends to the
    /// file's blocks each time, and brings the master down if the path is a directory. Only for `incomplete.rs`.
    pub(super) async fn ask_block_id(&self, path: &FsPath) -> Result<i64, Failure> {
        let options = GetNewBlockIdForFilePOptions { common_options: Some(self.changing(path)) };
        let message = GetNewBlockIdForFilePRequest { path: text(path), options: Some(options) };
        let send =
            |channel, request| async move { self.files(channel).get_new_block_id_for_file(request).await };
        let begun = Instant::now();
        let answer = self.attempt(Rpc::GetNewBlockIdForFile, path, message, &send).await;
        calls().record(Rpc::GetNewBlockIdForFile.place(), begun.elapsed(), answer.is_err());
        let answer = answer?;
        Ok(answer.id.ok_or_else(|| incomplete_answer(Rpc::GetNewBlockIdForFile, path))?)
    }

    /// The file, made by the options `at`, has all its bytes: `ufs` if they were written to the under file system, else
    /// those in its blocks.
    pub(super) async fn complete_file(
        &self,
        file: &IncompleteFile,
        at: &PathOptions,
        ufs: Option<UfsEnd>,
    ) -> Result<()> {
        let (length, hash) = match ufs {
            Some(end) => (Some(i64::try_from(end.length).unwrap_or(i64::MAX)), end.content_hash),
            None => (None, None),
        };
        let path = file.path();
        let message = |id| {
            let options = CompleteFilePOptions {
                ufs_length: length,
                async_persist_options: at.persist_later(),
                common_options: Some(at.changing(id)),
                content_hash: hash.clone(),
            };
            CompleteFilePRequest { path: text(path), options: Some(options) }
        };
        let send = |channel, request| async move { self.files(channel).complete_file(request).await };
        let incomplete = |info: &FileInfo| info.file_id() == file.file_id() && !info.completed();
        let undone = || async { shows(self.known_status(path).await, |info| info.is_some_and(incomplete)) };
        self.change(Rpc::CompleteFile, path, message, send, undone).await
    }

    /// A new directory; its parent must exist.
    pub(super) async fn create_directory(&self, path: &FsPath, mode: u32) -> Result<()> {
        let at = self.at(path);
        let message = |id| {
            let options = CreateDirectoryPOptions {
                recursive: Some(false),
                allow_exists: Some(false),
                mode: Some(permissions(mode)),
                write_type: Some(at.sent_write_type().into()),
                common_options: Some(at.creating(id)),
            };
            CreateDirectoryPRequest { path: text(path), options: Some(options) }
        };
        let send = |channel, request| async move { self.files(channel).create_directory(request).await };
        let undone = || async { shows(self.known_status(path).await, |info| info.is_none()) };
        self.change(Rpc::CreateDirectory, path, message, send, undone).await
    }

    /// Removes `path`, be it a file or an empty directory: the master does not tell them apart here.
    pub(super) async fn remove(&self, path: &FsPath) -> Result<()> {
        let at = self.at(path);
        let options = DeletePOptions {
            recursive: Some(false),
            alluxio_only: Some(false),
            unchecked: Some(at.delete_unchecked),
            common_options: Some(at.changing(self.operation_id())),
        };
        let message = DeletePRequest { path: text(path), options: Some(options) };
        self.call(Rpc::Remove, path, message, |channel, request| async move {
            self.files(channel).remove(request).await
        })
        .await?;
        Ok(())
    }

    /// Moves `from` to `to`.
    pub(super) async fn rename(&self, from: &FsPath, to: &FsPath, there: Destination) -> Result<()> {
        let at = self.at(from);
        let overwrite = S3SyntaxOptions { overwrite: Some(true), is_multipart_upload: Some(false) };
        let message = |id| {
            let options = RenamePOptions {
                common_options: Some(at.changing(id)),
                persist: Some(at.persist_on_rename),
                s3_syntax_options: matches!(there, Destination::ReplacedBy(_)).then_some(overwrite),
            };
            RenamePRequest { path: text(from), dst_path: text(to), options: Some(options) }
        };
        let send = |channel, request| async move { self.files(channel).rename(request).await };
        let unmoved = |info: &FileInfo| matches!(there, Destination::ReplacedBy(id) if info.file_id() == id);
        let (subject, mut broken) = (format!("{from} to {to}"), false);
        loop {
            let doubtful = AtomicBool::new(false);
            let renamed =
                self.try_call(Rpc::Rename, &subject, message(self.operation_id()), send, &doubtful).await;
            let doubtful = doubtful.into_inner();
            broken |= doubtful;
            match renamed {
                Ok(_) if !doubtful => return Ok(()),
                Ok(_) => {
                    let unmoved = shows(self.known_status(from).await, |info| info.is_some_and(unmoved))?;
                    if !unmoved && !self.left_behind(from, to).await? {
                        return Ok(());
                    }
                    half_done(Rpc::Rename, &subject);
                }
                Err(failure) if broken && failure.error.fault() == Fault::Io => {
                    let ahead = self.went_ahead(from, to).await?;
                    return if ahead { Ok(()) } else { Err(failure.error) };
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// Whether the file that the master shows at `to` is still at `from` in the under store, where a master that was killed
    /// meanwhile has not renamed it any more. It goes back to `from` then.
    async fn left_behind(&self, from: &FsPath, to: &FsPath) -> Result<bool> {
        Ok(shows(self.known_status(to).await, |info| info.is_some_and(is_stored_file))?
            && shows(self.synced_status(to).await, |info| info.is_none())?
            && shows(self.synced_status(from).await, |info| info.is_some())?)
    }

    /// Whether the file that the master shows at `from` is at `to` in the under store, where a master has renamed it that was
    /// killed before it wrote so in its journal. It is shown there then.
    async fn went_ahead(&self, from: &FsPath, to: &FsPath) -> Result<bool> {
        Ok(shows(self.known_status(from).await, |info| info.is_some_and(is_stored_file))?
            && shows(self.synced_status(to).await, |info| info.is_some())?
            && shows(self.synced_status(from).await, |info| info.is_none())?)
    }

    /// Changes one attribute.
    pub(super) async fn set_attribute(&self, path: &FsPath, change: Change) -> Result<()> {
        self.set_attribute_with(path, change, Xattrs::new()).await
    }

    /// Changes one attribute and sets `along`, for which the master then asks no right of its own.
    pub(super) async fn set_attribute_with(
        &self,
        path: &FsPath,
        change: Change,
        along: Xattrs,
    ) -> Result<()> {
        let mut options = self.xattr_change(path, XAttrUpdateStrategy::UnionReplace, along);
        match change {
            Change::Mode(mode) => options.mode = Some(permissions(mode)),
            Change::Owner(name) => options.owner = Some(name),
            Change::Group(name) => options.group = Some(name),
        }
        self.apply(Rpc::SetAttribute, path, options).await
    }

    /// Sets several attributes at once, for the owner.
    pub(super) async fn set_all(&self, path: &FsPath, settings: Settings) -> Result<()> {
        let mut options = self.xattr_change(path, XAttrUpdateStrategy::UnionReplace, settings.xattrs);
        options.mode = Some(permissions(settings.mode));
        if let Some((pinned, media)) = settings.pinned {
            options.pinned = Some(pinned);
            options.pinned_media = media;
        }
        if let Some((min, max)) = settings.replication {
            options.replication_min = Some(min);
            options.replication_max = Some(max);
        }
        if let (Some((ttl, action)), Some(common)) = (settings.ttl, &mut options.common_options) {
            common.ttl = Some(ttl);
            common.ttl_action = Some(action.into());
        }
        self.apply(Rpc::SetAttribute, path, options).await
    }

    /// Sets these extended attributes and leaves the others. Needs the right to write.
    pub(super) async fn set_xattrs(&self, path: &FsPath, pairs: Xattrs) -> Result<()> {
        self.apply(Rpc::SetXattr, path, self.xattr_change(path, XAttrUpdateStrategy::UnionReplace, pairs))
            .await
    }

    /// Sets those of `pairs` that are not there yet, in one step.
    pub(super) async fn add_xattrs(&self, path: &FsPath, pairs: Xattrs) -> Result<()> {
        self.apply(Rpc::SetXattr, path, self.xattr_change(path, XAttrUpdateStrategy::UnionPreserve, pairs))
            .await
    }

    /// Removes extended attributes.
    pub(super) async fn remove_xattrs(&self, path: &FsPath, names: Vec<String>) -> Result<()> {
        let pairs = names.into_iter().map(|name| (name, Bytes::new())).collect();
        self.apply(Rpc::SetXattr, path, self.xattr_change(path, XAttrUpdateStrategy::DeleteKeys, pairs)).await
    }

    /// Nothing but extended attributes. Without any, no strategy: the master would apply it to all.
    fn xattr_change(
        &self,
        path: &FsPath,
        strategy: XAttrUpdateStrategy,
        pairs: Xattrs,
    ) -> SetAttributePOptions {
        SetAttributePOptions {
            common_options: Some(self.at(path).asking()),
            xattr_update_strategy: (!pairs.is_empty()).then_some(strategy.into()),
            xattr: pairs,
            ..SetAttributePOptions::default()
        }
    }

    /// Sends `options` and nothing else: every field that is present is applied, a time to live too.
    async fn apply(&self, rpc: Rpc, path: &FsPath, options: SetAttributePOptions) -> Result<()> {
        let message = SetAttributePRequest { path: text(path), options: Some(options) };
        self.call(rpc, path, message, |channel, request| async move {
            self.files(channel).set_attribute(request).await
        })
        .await?;
        Ok(())
    }

    /// Whether the login user may do what the bits of `mask` (4 read, 2 write, 1 execute) say.
    pub(super) async fn check_access(&self, path: &FsPath, mask: u32) -> Result<()> {
        let common = self.at(path).asking();
        let options = CheckAccessPOptions { bits: Some(bits(mask).into()), common_options: Some(common) };
        let message = CheckAccessPRequest { path: text(path), options: Some(options) };
        self.call(Rpc::CheckAccess, path, message, |channel, request| async move {
            self.files(channel).check_access(request).await
        })
        .await?;
        Ok(())
    }

    /// Where a block is.
    pub(super) async fn block_info(&self, block_id: i64) -> Result<BlockInfo> {
        let subject = format!("block {block_id}");
        let message = GetBlockInfoPRequest { block_id: Some(block_id), options: None };
        let answer = self
            .call(Rpc::GetBlockInfo, &subject, message, |channel, request| async move {
                self.blocks(channel).get_block_info(request).await
            })
            .await?;
        answer.block_info.ok_or_else(|| incomplete_answer(Rpc::GetBlockInfo, &subject))
    }

    /// The live workers.
    pub(super) async fn worker_infos(&self) -> Result<Vec<WorkerInfo>> {
        let message = GetWorkerInfoListPOptions {};
        let answer = self
            .call(Rpc::GetWorkerInfoList, &"of all", message, |channel, request| async move {
                self.blocks(channel).get_worker_info_list(request).await
            })
            .await?;
        Ok(answer.worker_infos)
    }

    /// Capacity and use of all workers together.
    pub(super) async fn block_master_info(&self) -> Result<BlockMasterInfo> {
        let message = GetBlockMasterInfoPOptions { filters: Vec::new() };
        let answer = self
            .call(Rpc::GetBlockMasterInfo, &CAPACITY, message, |channel, request| async move {
                self.blocks(channel).get_block_master_info(request).await
            })
            .await?;
        answer.block_master_info.ok_or_else(|| incomplete_answer(Rpc::GetBlockMasterInfo, &CAPACITY))
    }

    /// Which version serves, and since when.
    pub(super) async fn master_info(&self) -> Result<MasterInfo> {
        let answer = self
            .call(
                Rpc::GetMasterInfo,
                &"of the cluster",
                GetMasterInfoPOptions {},
                |channel, request| async move {
                    MetaMasterClientServiceClient::new(channel).get_master_info(request).await
                },
            )
            .await?;
        answer.master_info.ok_or_else(|| incomplete_answer(Rpc::GetMasterInfo, &"of the cluster"))
    }

    fn files(&self, channel: Channel) -> FileClient {
        FileClient::new(channel).max_decoding_message_size(self.message_max())
    }

    fn blocks(&self, channel: Channel) -> BlockClient {
        BlockClient::new(channel).max_decoding_message_size(self.message_max())
    }

    /// Far more than tonic's default of 4 MiB: a file of many blocks has a long entry, and a listing many entries.
    pub(super) fn message_max(&self) -> usize {
        usize::try_from(self.options.rpc_message_max).unwrap_or(usize::MAX)
    }

    /// A call, with the operation id that `message` is given, for what the master may take for done though it is not: as long as
    /// that is `undone`, it is made again with another id.
    async fn change<M, R, F, Fut, U>(
        &self,
        rpc: Rpc,
        subject: &(impl Display + Sync),
        message: impl Fn(Option<FsOpPId>) -> M,
        send: F,
        undone: impl Fn() -> U,
    ) -> Result<()>
    where
        M: Clone + Debug,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
        U: Future<Output = Result<bool>>,
    {
        loop {
            let doubtful = AtomicBool::new(false);
            self.try_call(rpc, subject, message(self.operation_id()), &send, &doubtful).await?;
            if !doubtful.into_inner() || !undone().await? {
                return Ok(());
            }
            half_done(rpc, subject);
        }
    }

    /// A call as often as the retry properties allow.
    async fn call<M, R, F, Fut>(
        &self,
        rpc: Rpc,
        subject: &(impl Display + Sync),
        message: M,
        send: F,
    ) -> Result<R>
    where
        M: Clone + Debug,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        Ok(self.try_call(rpc, subject, message, send, &AtomicBool::default()).await?)
    }

    /// The same for who wants to know more of a failure, and whether the master may have begun in an attempt that failed what the
    /// next one asked for.
    async fn try_call<M, R, F, Fut>(
        &self,
        rpc: Rpc,
        subject: &(impl Display + Sync),
        message: M,
        send: F,
        doubtful: &AtomicBool,
    ) -> Result<R, Failure>
    where
        M: Clone + Debug,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let (begun, attempts) = (Instant::now(), AtomicU32::new(0));
        let _under_way = rpc.is_change().then(|| self.changes.begin());
        let attempt = || async {
            if attempts.fetch_add(1, Ordering::Relaxed) > 0 {
                calls().retry(rpc.place());
            }
            let outcome = self.attempt(rpc, subject, message.clone(), &send).await;
            let broken = |failure: &Failure| failure.class == Class::Connection && !failure.unsent;
            if outcome.as_ref().is_err_and(broken) {
                doubtful.store(true, Ordering::Relaxed);
            }
            outcome
        };
        let outcome = self.repeat(attempt).await;
        calls().record(rpc.place(), begun.elapsed(), outcome.is_err());
        outcome
    }

    /// Makes `attempt` until it succeeds, its failure is final, or the time for retries is over.
    pub(super) async fn repeat<R, F, Fut>(&self, attempt: F) -> Result<R, Failure>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<R, Failure>>,
    {
        let mut backoff = Backoff::new(self.options.rpc_retry);
        let (mut unauthenticated, mut raced) = (0, 0);
        loop {
            let failure = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            log::debug!("attempt {} failed: {}", backoff.attempts(), failure.error);
            match failure.class {
                Class::Unregistered | Class::Final => return Err(failure),
                Class::Unauthenticated => {
                    unauthenticated += 1;
                    if unauthenticated == 1 {
                        continue;
                    }
                    if unauthenticated > UNAUTHENTICATED_MAX {
                        return Err(failure);
                    }
                }
                Class::Raced => {
                    raced += 1;
                    if raced > RACED_MAX {
                        return Err(failure);
                    }
                    continue;
                }
                Class::Connection => {}
            }
            let pause = waiting::wait(&Arc::default(), "a pause before the next attempt");
            let goes_on = backoff.wait().await;
            drop(pause);
            if !goes_on {
                let (attempts, time) = (backoff.attempts(), backoff.elapsed().as_secs_f32());
                let context = format_args!("gave up after {attempts} attempts in {time:.1} s");
                return Err(Failure { error: failure.error.context(context), ..failure });
            }
        }
    }

    /// One attempt at the primary, which is forgotten if it was not reached or does not serve, as is the channel id
    /// if it was refused.
    async fn attempt<M, R, F, Fut>(
        &self,
        rpc: Rpc,
        subject: &(impl Display + Sync),
        message: M,
        send: &F,
    ) -> Result<R, Failure>
    where
        M: Debug,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let (server, id) = self.connect().await?;
        self.calls.add(1);
        server.sends(rpc, &message);
        let _call = server.calls(rpc);
        let begun = Instant::now();
        let result = within(self.options.rpc_timeout, send(server.channel(), id.sign(message))).await;
        server.took(rpc, begun, result.is_err());
        self.note_time(rpc, subject, server.name(), begun.elapsed(), result.as_ref().err());
        let status = match result {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let failure = failure(rpc, subject, server.name(), &status);
        match failure.class {
            Class::Connection => self.primary.lost(&server),
            Class::Unauthenticated if server.authenticates() => server.refresh(&id),
            Class::Unauthenticated => {
                let hint =
                    "the cluster wants authentication, set alluxio.security.authentication.type=SIMPLE";
                return Err(failure.error.context(hint).into());
            }
            Class::Raced | Class::Unregistered | Class::Final => {}
        }
        Err(failure)
    }

    /// A warning if a call took long, in the words of Alluxio's client.
    fn note_time(
        &self,
        rpc: Rpc,
        subject: &impl Display,
        server: &str,
        time: Duration,
        failure: Option<&Status>,
    ) {
        let (limit, ms) = (self.options.logging_threshold, time.as_millis());
        if time < limit {
            return;
        }
        let limit = limit.as_millis();
        match failure {
            None => log::warn!("{rpc:?}({subject}) returned by {server} in {ms} ms (>={limit} ms)"),
            Some(status) => log::warn!(
                "{rpc:?}({subject}) exits with exception [{}] by {server} in {ms} ms (>={limit} ms)",
                status.message()
            ),
        }
    }

    /// The primary, and what signs requests to it. Asks nobody while the connection lasts that was used last.
    async fn connect(&self) -> Result<(Arc<Server>, ChannelId), Failure> {
        let server = self.primary.server().await?;
        match server.ready().await {
            Ok(id) => Ok((server, id)),
            Err(failure) => {
                self.primary.lost(&server);
                Err(failure)
            }
        }
    }

    /// Waits until there is a master, if it was lost, as long as the retry properties allow.
    pub(super) async fn reached(&self) -> Result<()> {
        self.repeat(|| async { self.connect().await.map(drop) }).await?;
        Ok(())
    }

    fn changing(&self, path: &FsPath) -> FileSystemMasterCommonPOptions {
        self.at(path).changing(self.operation_id())
    }

    fn operation_id(&self) -> Option<FsOpPId> {
        self.options.include_operation_id.then(|| operation_id(Uuid::new_v4()))
    }
}

/// Whether the under store has it.
fn is_stored_file(info: &FileInfo) -> bool {
    !info.folder() && info.completed() && info.persisted()
}

/// Whether what is at a path, if anything, is so as `test` says. Not if that is not to be told.
fn shows(status: Result<FileInfo>, test: impl FnOnce(Option<&FileInfo>) -> bool) -> Result<bool> {
    match status {
        Ok(info) => Ok(test(Some(&info))),
        Err(err) => match err.fault() {
            Fault::NotFound => Ok(test(None)),
            Fault::PermissionDenied => Ok(false),
            _ => Err(err),
        },
    }
}

/// A change that the master takes for done, and has not made, is asked for once more.
fn half_done(rpc: Rpc, subject: &impl Display) {
    log::warn!("{rpc:?} {subject} was not carried out by the master that broke off, and is asked for again");
}

/// Calls to masters as their callers see them, with all attempts.
fn calls() -> &'static Calls {
    metrics::all_servers(Rpc::NAMES)
}

/// A path as it is sent; see `Shared::place`.
fn text(path: &FsPath) -> Option<String> {
    debug_assert!(!path.as_str().contains(MISREAD), "{path} was not checked");
    Some(path.as_str().to_owned())
}

/// Alluxio has no set-user-id, set-group-id and sticky bits; they are dropped, as its own client does.
fn permissions(mode: u32) -> PMode {
    PMode {
        owner_bits: bits(mode >> 6).into(),
        group_bits: bits(mode >> 3).into(),
        other_bits: bits(mode).into(),
    }
}

/// The lowest three bits: read, write, execute.
fn bits(rwx: u32) -> Bits {
    match rwx & 0o7 {
        0 => Bits::None,
        1 => Bits::Execute,
        2 => Bits::Write,
        3 => Bits::WriteExecute,
        4 => Bits::Read,
        5 => Bits::ReadExecute,
        6 => Bits::ReadWrite,
        _ => Bits::All,
    }
}

fn incomplete_answer(rpc: Rpc, subject: &impl Display) -> FsError {
    FsError::because(Fault::Io, format!("the master's answer to {rpc:?} {subject} lacks its result"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use parking_lot::Mutex;
    use prost::Message;
    use tokio::runtime::Builder;
    use tonic::Code;

    use super::super::fake_server::FakeServer;
    use super::super::fake_server::Reply;
    use super::super::proto::grpc::file::CreateFilePResponse;
    use super::super::proto::grpc::file::DeletePResponse;
    use super::super::proto::grpc::file::GetStatusPResponse;
    use super::*;

    fn master(options: AlluxioOptions) -> Master {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        Master::new(Arc::new(options)).unwrap()
    }

    #[test]
    fn calls_can_be_made_by_tasks() {
        fn sendable<T: Send>(future: T) -> T {
            future
        }
        let master = master(AlluxioOptions::default());
        let root = FsPath::root();
        let mut file = IncompleteFile::created(root.clone(), &FileInfo::default(), None);
        drop(sendable(master.create_file(&root, &PathOptions::default(), 0, false)));
        drop(sendable(master.new_block(&mut file)));
        drop(sendable(master.complete_file(&file, &PathOptions::default(), None)));
        drop(sendable(master.block_info(0)));
        drop(sendable(master.list_status(&root, None, 1)));
    }

    #[test]
    fn permission_bits_are_one_more_than_rwx() {
        for rwx in 0..8 {
            assert_eq!(i32::from(bits(rwx)), i32::try_from(rwx).unwrap() + 1);
        }
        let sent = permissions(0o4751);
        assert_eq!(
            (sent.owner_bits(), sent.group_bits(), sent.other_bits()),
            (Bits::All, Bits::ReadExecute, Bits::Execute)
        );
    }

    #[test]
    fn every_change_has_an_operation_id_of_its_own() {
        let with = master(AlluxioOptions::default());
        assert!(with.operation_id().is_some());
        assert_ne!(with.operation_id(), with.operation_id());
        let without = master(AlluxioOptions { include_operation_id: false, ..AlluxioOptions::default() });
        assert_eq!(without.operation_id(), None);
    }

    /// What comes of making a file at a master that answers the first request with `first` and any other with `next`, and how
    /// many files are left in the journal for the next process.
    async fn made(first: Reply, next: Reply) -> (Result<i64>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let replies = (Mutex::new(Some(first)), next);
        let server = FakeServer::start(move |_, _| replies.0.lock().take().unwrap_or(replies.1.clone()));
        let options = AlluxioOptions { journal_dir: Some(dir.path().to_owned()), ..server.options() };
        let cluster = journal::cluster(&options);
        let master = Master::new(Arc::new(options)).unwrap().with_journal();
        let file = FsPath::parse("/f").unwrap();
        let made = master.create_file(&file, &PathOptions::default(), 0o600, false).await;
        // Whoever has it keeps the journal.
        let made = made.map(|(_, info)| info.file_id());
        drop(master);
        (made, left_in(dir.path(), &cluster))
    }

    fn left_in(dir: &Path, cluster: &str) -> usize {
        journal::left(dir, cluster).unwrap().iter().map(|left| left.files.len()).sum()
    }

    fn file(info: FileInfo) -> Reply {
        Reply::message(&CreateFilePResponse { file_info: Some(info) })
    }

    #[tokio::test]
    async fn only_what_may_have_been_made_is_left_to_the_next_process() {
        for (code, left) in
            [(Code::Internal, 0), (Code::Unknown, 0), (Code::PermissionDenied, 0), (Code::Unavailable, 1)]
        {
            let (made, found) = made(Reply::Failure(code), Reply::Failure(code)).await;
            assert!(made.is_err());
            assert_eq!(found, left, "{code:?}");
        }
        assert_eq!(made(Reply::Lost, Reply::Lost).await.1, 1);
    }

    #[tokio::test]
    async fn a_repeat_that_is_answered_with_the_file_of_somebody_else_makes_nothing() {
        let ours = FileInfo { file_id: Some(7), ..FileInfo::default() };
        let (made_again, left) = made(Reply::Lost, file(ours.clone())).await;
        assert_eq!((made_again.unwrap(), left), (7, 1), "it is incomplete");
        let complete = FileInfo { completed: Some(true), ..ours.clone() };
        let begun = FileInfo { block_ids: vec![5], ..ours };
        for other in [complete, begun] {
            let (made, left) = made(Reply::Lost, file(other)).await;
            assert_eq!((made.unwrap_err().fault(), left), (Fault::Exists, 0));
        }
    }

    /// What `change` asks of a master that breaks off at its first request, and then answers the first one, and the next one with
    /// another operation id, by `answers`. It shows at each path what `there` says.
    async fn asked(
        answers: [Reply; 2],
        there: impl Fn(&str) -> Option<FileInfo> + Send + Sync + 'static,
        change: impl AsyncFnOnce(&Master) -> Result<()>,
    ) -> String {
        let asked = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let noted = Arc::clone(&asked);
        let server = FakeServer::start(move |call, message| {
            let (calls, requests): &mut (Vec<String>, Vec<Vec<u8>>) = &mut noted.lock();
            if call == "GetStatus" {
                let path = GetStatusPRequest::decode(message).unwrap().path().to_owned();
                let info = there(&path);
                calls.push(format!("GetStatus {path}"));
                return match info {
                    Some(info) => Reply::message(&GetStatusPResponse { file_info: Some(info) }),
                    None => Reply::Failure(Code::NotFound),
                };
            }
            let first = requests.is_empty();
            if !requests.iter().any(|request| request == message) {
                requests.push(message.to_vec());
            }
            calls.push(format!("{call} {}", requests.len()));
            if first { Reply::Lost } else { answers[requests.len() - 1].clone() }
        });
        change(&Master::new(Arc::new(server.options())).unwrap()).await.unwrap();
        asked.lock().0.join(", ")
    }

    #[tokio::test]
    async fn what_a_master_has_only_begun_is_asked_for_again() {
        let path = |text| FsPath::parse(text).unwrap();
        let done = || [(); 2].map(|()| Reply::message(&DeletePResponse {}));
        let ours = FileInfo { file_id: Some(7), ..FileInfo::default() };
        let shown = |there: &Option<FileInfo>| {
            let there = there.clone();
            move |_: &str| there.clone()
        };

        let make = async |master: &Master| master.create_directory(&path("/d"), 0o755).await;
        let calls = asked(done(), shown(&None), make).await;
        assert_eq!(calls, "CreateDirectory 1, CreateDirectory 1, GetStatus /d, CreateDirectory 2");
        let calls = asked(done(), shown(&Some(FileInfo::default())), make).await;
        assert_eq!(calls, "CreateDirectory 1, CreateDirectory 1, GetStatus /d");

        let complete = async |master: &Master| {
            let file = IncompleteFile::created(
                path("/f"),
                &FileInfo { file_id: Some(7), ..FileInfo::default() },
                None,
            );
            master.complete_file(&file, &PathOptions::default(), None).await
        };
        let calls = asked(done(), shown(&Some(ours.clone())), complete).await;
        assert_eq!(calls, "CompleteFile 1, CompleteFile 1, GetStatus /f, CompleteFile 2");
        let complete_there = FileInfo { completed: Some(true), ..ours.clone() };
        let calls = asked(done(), shown(&Some(complete_there.clone())), complete).await;
        assert_eq!(calls, "CompleteFile 1, CompleteFile 1, GetStatus /f");

        let create = async |master: &Master| {
            master.create_file(&path("/f"), &PathOptions::default(), 0o600, true).await.map(drop)
        };
        let calls = asked([Reply::Failure(Code::NotFound), file(ours.clone())], shown(&None), create).await;
        assert_eq!(calls, "CreateFile 1, CreateFile 1, CreateFile 2");
        let calls = asked([file(ours.clone()), Reply::Lost], shown(&None), create).await;
        assert_eq!(calls, "CreateFile 1, CreateFile 1");
    }

    #[tokio::test]
    async fn a_rename_that_has_only_removed_what_it_replaces_or_left_the_under_store_behind_is_asked_for_again()
     {
        let path = |text| FsPath::parse(text).unwrap();
        let done = || [(); 2].map(|()| Reply::message(&DeletePResponse {}));
        let ours = |persisted| FileInfo {
            file_id: Some(7),
            completed: Some(true),
            persisted: Some(persisted),
            ..FileInfo::default()
        };
        let replace =
            async |master: &Master| master.rename(&path("/f"), &path("/g"), Destination::ReplacedBy(7)).await;
        let keep = async |master: &Master| master.rename(&path("/f"), &path("/g"), Destination::Keep).await;

        let calls = asked(done(), move |at| (at == "/f").then(|| ours(false)), replace).await;
        assert_eq!(calls, "Rename 1, Rename 1, GetStatus /f, Rename 2");
        // Moved; what is at /f by now is another file.
        let other = FileInfo { file_id: Some(8), ..ours(false) };
        let calls =
            asked(done(), move |at| Some(if at == "/f" { other.clone() } else { ours(false) }), replace)
                .await;
        assert_eq!(calls, "Rename 1, Rename 1, GetStatus /f, GetStatus /g");

        // Synchronized, the file goes back.
        let looks = AtomicU32::new(0);
        let behind = move |at: &str| {
            let synced = looks.fetch_add(1, Ordering::Relaxed) >= 2;
            ((at == "/f") == synced).then(|| ours(true))
        };
        let calls = asked(done(), behind, keep).await;
        let expected = "Rename 1, Rename 1, GetStatus /f, GetStatus /g, GetStatus /g, GetStatus /f, Rename 2";
        assert_eq!(calls, expected);
        let calls = asked(done(), move |at| (at == "/g").then(|| ours(true)), keep).await;
        assert_eq!(calls, "Rename 1, Rename 1, GetStatus /f, GetStatus /g, GetStatus /g");

        // The under store is ahead, which the first look does not show.
        let looks = AtomicU32::new(0);
        let ahead = move |at: &str| {
            let synced = looks.fetch_add(1, Ordering::Relaxed) >= 1;
            ((at == "/g") == synced).then(|| ours(true))
        };
        let fails = || [(); 2].map(|()| Reply::Failure(Code::Internal));
        let calls = asked(fails(), ahead, keep).await;
        assert_eq!(calls, "Rename 1, Rename 1, GetStatus /f, GetStatus /g, GetStatus /f");
    }

    #[test]
    fn options_of_paths_can_be_changed_while_the_mount_serves() {
        let master = master(AlluxioOptions::default());
        let path = FsPath::parse("/a/b").unwrap();
        let before = master.at(&path);
        let other = PathOptions { block_size: 7, ..PathOptions::default() };
        master.set_paths(PathTable::new(PathOptions::default(), vec![(path.parent().unwrap(), other)]));
        assert_eq!(master.at(&path).block_size, 7);
        assert_ne!(before.block_size, 7, "who has begun goes on");
        assert_ne!(master.at(&FsPath::root()).block_size, 7);
    }
}
