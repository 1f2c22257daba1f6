//! The Alluxio backend: an `fs::FileSystem` over the masters and workers of an Alluxio 2.9 cluster. Knows neither
//! the kernel nor properties.
//!
//! Calls run on the caller's thread and wait in `bridge`; everything below is futures. `master` asks for names,
//! attributes and blocks, `workers` knows who has the bytes, `connection` how to reach them.

mod attr;
mod backing;
mod block_read;
mod block_write;
mod bridge;
mod budget;
mod call_options;
mod capacity;
mod chunk;
mod configuration;
mod connection;
mod copies;
mod data_path;
mod error;
#[cfg(test)]
mod fake_server;
mod fetch;
mod flight;
mod grpc;
mod heartbeat;
mod incomplete;
mod journal;
mod known;
mod layout;
mod leftovers;
mod listing;
mod local_block;
mod mapped_blocks;
mod master;
mod names;
mod new_block;
mod options;
mod outbox;
mod path_use;
#[doc(hidden)]
pub mod pieces;
mod primary;
mod proto;
mod read_responses;
mod read_stream;
mod reader;
mod replace;
mod retry;
mod settings;
mod survey;
mod times;
mod traffic;
mod ufs_names;
mod upload;
mod version;
mod window;
mod worker;
mod workers;
mod write_job;
mod writer;
mod xattrs;

pub use budget::Memory;
pub use configuration::ClusterConfiguration;
pub use configuration::ClusterProperty;
pub use configuration::fetch_configuration;
pub use heartbeat::Report;
pub use options::*;
pub use survey::Survey;
pub use survey::Surveyed;
pub use survey::survey;
pub use traffic::Traffic;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use self::attr::Owners;
use self::attr::all_may;
use self::attr::attr;
use self::attr::owner_may;
use self::bridge::Bridge;
use self::capacity::Capacity;
use self::capacity::stat_fs;
use self::connection::Connections;
use self::data_path::DataPath;
use self::journal::Entry;
use self::leftovers::Unwanted;
use self::leftovers::may_pass;
use self::listing::AlluxioListing;
use self::master::Change;
use self::master::Destination;
use self::master::Master;
use self::names::Names;
use self::proto::grpc::file::FileInfo;
use self::times::Xattrs;
use self::workers::Workers;
use crate::fs::Allowance;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileReader;
use crate::fs::FileSystem;
use crate::fs::FileWriter;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Listing;
use crate::fs::RenameMode;
use crate::fs::Result;
use crate::fs::SetAttr;
use crate::fs::StatFs;
use crate::fs::Timestamp;
use crate::fs::XattrMode;

/// Longest name that is let through. Alluxio has no limit of its own.
const NAME_MAX: usize = 255;

/// Characters that the master does not take as part of a name.
const MISREAD: [char; 2] = ['\\', '?'];

/// Set-user-id, set-group-id, sticky: bits that Alluxio has no place for.
const SPECIAL: u32 = 0o7000;

/// What the files and calls of one mount share.
struct Shared {
    options: Arc<AlluxioOptions>,
    bridge: Bridge,
    master: Arc<Master>,
    workers: Workers,
    connections: Connections,
    data: DataPath,
    owners: Owners,
    capacity: Capacity,
    /// Complete files that have not taken their place yet, by number: should this process end now, they are removed.
    beside: Mutex<HashMap<i64, Entry>>,
}

/// A path of an Alluxio cluster as a file system.
pub struct AlluxioFs {
    shared: Arc<Shared>,
}

/// How long the end of the mount waits for files that were given up to be removed, or are still being completed.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

impl Drop for AlluxioFs {
    fn drop(&mut self) {
        let left = self.shared.bridge.finish(FINISH_LIMIT);
        if left > 0 {
            log::warn!("{left} files that were being written are left behind incomplete");
        }
    }
}

impl AlluxioFs {
    /// Finds the primary master and the root path, within the time that `options` give for retries. Starts threads,
    /// so it comes after the process has forked for the last time.
    pub fn connect(options: AlluxioOptions) -> Result<Self> {
        let shared = Arc::new(Shared::new(options)?);
        let root = &shared.options.root;
        let info = shared
            .bridge
            .run(&Ctx::daemon(), None, shared.master.get_status(&shared.place(&FsPath::root())?))
            .map_err(|err| match err.fault() {
                Fault::NotFound => {
                    FsError::because(Fault::NotFound, format!("{root} does not exist in Alluxio"))
                }
                _ => err,
            })?;
        if !info.folder() {
            return Err(FsError::because(
                Fault::NotDirectory,
                format!("{root} in Alluxio is not a directory"),
            ));
        }
        if let Some(dir) = shared.options.journal_dir.clone() {
            // Not waited for: nothing here depends on it.
            shared.bridge.spawn(leftovers::clean_up(Arc::clone(&shared), dir));
        }
        // Known from the start, so that there is something to show when the master goes away.
        if let Err(err) = shared.stat_fs(&Ctx::daemon(), Some(Instant::now() + capacity::PATIENCE)) {
            log::debug!("the capacity of the cluster is not known yet: {err}");
        }
        Ok(Self { shared })
    }

    /// Options of paths for what is opened and made from now on.
    pub fn set_paths(&self, paths: PathTable) {
        self.shared.master.set_paths(paths);
    }

    /// The configuration of the cluster, as of now.
    pub fn configuration(&self, ctx: &Ctx) -> Result<ClusterConfiguration> {
        configuration::ask(ctx, &self.shared.bridge, &self.shared.master)
    }

    /// The hashes of the configuration and of that of paths: cheap to ask for, to see whether either changed.
    pub fn configuration_hashes(&self, ctx: &Ctx) -> Result<(String, String)> {
        configuration::ask_hashes(ctx, &self.shared.bridge, &self.shared.master)
    }

    /// Who uses how much of the memory for data now.
    pub fn memory(&self) -> Memory {
        self.shared.data.memory.memory(self.shared.data.mappings.bytes())
    }

    /// The memory for data, for layers above that hold some.
    pub fn allowance(&self) -> Arc<dyn Allowance> {
        Arc::new(budget::Shared(Arc::clone(&self.shared.data.memory)))
    }

    /// Tells the master what this client has done since it was told last; not after `deadline`.
    pub fn report(&self, ctx: &Ctx, deadline: Option<Instant>, report: &Report) -> Result<()> {
        self.shared.bridge.run(ctx, deadline, self.shared.master.heartbeat(report))
    }

    /// Connections to workers that are kept.
    pub fn worker_connections(&self) -> usize {
        self.shared.connections.count()
    }

    /// What went to and came from workers until now.
    pub fn traffic(&self) -> Traffic {
        self.shared.data.traffic.traffic(self.shared.master.calls())
    }
}

impl Shared {
    fn new(options: AlluxioOptions) -> Result<Self> {
        let options = Arc::new(options);
        let bridge = Bridge::new(options.network_threads)?;
        let master = {
            let _inside = bridge.calls().enter();
            Arc::new(Master::new(Arc::clone(&options))?.with_journal())
        };
        Ok(Self {
            workers: Workers::new(Arc::clone(&options), Arc::clone(&master)),
            connections: Connections::new(bridge.handle().clone(), Arc::clone(&options)),
            data: DataPath::new(&options),
            owners: Owners { policy: options.owner_policy.clone(), names: Names::default() },
            capacity: Capacity::default(),
            beside: Mutex::default(),
            master,
            bridge,
            options,
        })
    }

    /// The place in Alluxio of a path in the mount. Refuses what the master would take for another path: a backslash,
    /// which it reads as a slash, and a question mark, from which on it ignores the rest. `rm 'a?b'` would remove `a`.
    fn place(&self, path: &FsPath) -> Result<FsPath> {
        let place = path.under(&self.options.root);
        if place.as_str().contains(MISREAD) {
            let detail = format!("{path}: Alluxio cannot store a name with a backslash or a question mark");
            return Err(FsError::because(Fault::InvalidArgument, detail));
        }
        Ok(place)
    }

    /// Attributes as this mount shows them.
    fn attr(&self, info: &FileInfo) -> Attr {
        let mut attr = attr(info, &self.owners);
        if self.options.times {
            times::show(info, &mut attr);
        }
        attr
    }

    /// Checks that the login user may read the file `place`, which neither the master nor a worker does.
    async fn check_read(&self, place: &FsPath, info: &FileInfo) -> Result<()> {
        self.check(place, info, 4).await
    }

    /// Checks that the login user may use `place` in the ways of `mask`. What all or its owner may costs nothing; for
    /// the rest the master is asked, who knows groups and superusers.
    async fn check(&self, place: &FsPath, info: &FileInfo, mask: u32) -> Result<()> {
        if all_may(info, mask) || owner_may(info, &self.options.user, mask) {
            Ok(())
        } else {
            self.master.check_access(place, mask).await
        }
    }

    /// Gives what `ctx` has just made at `place` to the user that the policy says. That it cannot be given away is
    /// no reason to fail: it exists and can be used.
    async fn adopt(&self, ctx: &Ctx<'_>, place: &FsPath, mut info: FileInfo) -> FileInfo {
        let (uid, gid) = match self.owners.policy {
            OwnerPolicy::LaunchUser { .. } => return info,
            OwnerPolicy::SystemUser => (ctx.uid, ctx.gid),
            OwnerPolicy::Custom { uid, gid } => (uid, gid),
        };
        let owner = self.owners.names.user(uid).filter(|name| name != info.owner());
        let group = self.owners.names.group(gid).filter(|name| name != info.group());
        let steps = [group.map(Change::Group), owner.map(Change::Owner), None];
        if let Err(err) = self.take_steps(place, &mut info, steps, Xattrs::new()).await {
            log::warn!("{place} stays with {}:{}: {err}", info.owner(), info.group());
        }
        info
    }

    /// Removes `place`, which must be a directory or must not be one: the master does not tell them apart.
    async fn remove(&self, place: &FsPath, directory: bool) -> Result<()> {
        let info = self.master.get_status(place).await?;
        match (directory, info.folder()) {
            (true, false) => Err(Fault::NotDirectory.into()),
            (false, true) => Err(Fault::IsDirectory.into()),
            (true, true) | (false, false) => self.master.remove(place).await,
        }?;
        self.in_place(info.file_id());
        Ok(())
    }

    /// Removes `place`, where the caller has seen a file.
    async fn remove_seen(&self, place: &FsPath) -> Result<()> {
        // Which of them it is, if any, only its id tells.
        if !self.beside.lock().is_empty() {
            return self.remove(place, false).await;
        }
        self.master.remove(place).await.map_err(|err| match err.fault() {
            Fault::NotEmpty => Fault::IsDirectory.into(),
            _ => err,
        })
    }

    /// The file `file_id` is at its place, or gone.
    fn in_place(&self, file_id: i64) {
        if let Some(entry) = self.beside.lock().remove(&file_id) {
            entry.done();
        }
    }

    /// rename(2) over what is there. The master's own "overwrite" would delete a directory with all that is in it, so
    /// it is used only when the destination is known to be a file.
    async fn rename_over(&self, from: &FsPath, to: &FsPath) -> Result<()> {
        let plain = self.master.rename(from, to, Destination::Keep).await;
        if !plain.as_ref().is_err_and(|err| err.fault() == Fault::Exists) {
            return plain;
        }
        let source = self.master.get_status(from).await?;
        let target = match self.master.get_status(to).await {
            // Gone in the meantime.
            Err(err) if err.fault() == Fault::NotFound => {
                return self.master.rename(from, to, Destination::Keep).await;
            }
            result => result?,
        };
        match (source.folder(), target.folder()) {
            (false, false) => self.master.rename(from, to, Destination::ReplacedBy(source.file_id())).await,
            (false, true) => Err(Fault::IsDirectory.into()),
            (true, false) => Err(Fault::NotDirectory.into()),
            (true, true) => {
                self.master.remove(to).await?;
                self.master.rename(from, to, Destination::Keep).await
            }
        }
    }

    /// Applies `change` and returns what is there then. The times that it sets, and that something was changed now,
    /// are kept by the first of its calls.
    async fn change(&self, place: &FsPath, change: &SetAttr) -> Result<FileInfo> {
        let mut info = self.master.get_status(place).await?;
        let special = change.mode.is_some_and(|mode| mode & SPECIAL != 0);
        let present = info.mode().cast_unsigned();
        let mode = change.mode.map(|mode| mode & 0o777).filter(|mode| !special || *mode != present);
        let (owner, group) = self.new_owner(&info, change)?;
        let steps = [group.map(Change::Group), owner.map(Change::Owner), mode.map(Change::Mode)];
        let along =
            if self.options.times { times::after(&info, change, Timestamp::now()) } else { Xattrs::new() };
        if steps.iter().any(Option::is_some) {
            self.take_steps(place, &mut info, steps, along).await?;
        } else if change.has_times() {
            self.keep(place, &mut info, along, change.now).await?;
        } else if !special {
            // What was to be set is so already. That is a change all the same, if it is for us to make one.
            match self.keep(place, &mut info, along, false).await {
                Err(err) if err.fault() == Fault::NotPermitted => {}
                outcome => outcome?,
            }
        }
        if special {
            let detail = format!("{place}: Alluxio has no set-user-id, set-group-id and sticky bits");
            return Err(FsError::because(Fault::NotPermitted, detail));
        }
        Ok(info)
    }

    /// Makes one change after the other, as owner and group in one call would have to go together in the master's
    /// eyes, and notes them in `info`. The first takes the extended attributes `along`.
    async fn take_steps(
        &self,
        place: &FsPath,
        info: &mut FileInfo,
        steps: [Option<Change>; 3],
        mut along: Xattrs,
    ) -> Result<()> {
        for step in steps.into_iter().flatten() {
            let along = std::mem::take(&mut along);
            self.master.set_attribute_with(place, step.clone(), along.clone()).await?;
            info.xattr.extend(along);
            match step {
                Change::Mode(mode) => info.mode = Some(mode.cast_signed()),
                Change::Owner(name) => info.owner = Some(name),
                Change::Group(name) => info.group = Some(name),
            }
        }
        Ok(())
    }

    /// Keeps `pairs` with the file. Times of now are for everybody who may write, which the master checks; all else
    /// is for the owner, who needs no right to write.
    async fn keep(&self, place: &FsPath, info: &mut FileInfo, pairs: Xattrs, now: bool) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let mode = info.mode().cast_unsigned();
        let is_owner = info.owner() == self.options.user;
        if is_owner && mode & 0o200 != 0 || !is_owner && now {
            self.master.set_xattrs(place, pairs.clone()).await?;
        } else {
            self.master.set_attribute_with(place, Change::Mode(mode), pairs.clone()).await?;
        }
        info.xattr.extend(pairs);
        Ok(())
    }

    /// Names for the numbers in `change` that are not already shown. So `cp -p` by the one who mounts, which gives a
    /// file to whom it belongs anyway, needs no right to give files away.
    fn new_owner(&self, info: &FileInfo, change: &SetAttr) -> Result<(Option<String>, Option<String>)> {
        let unknown = |kind: &str, id: u32| {
            let detail = format!("{kind} {id} has no name on this host, and Alluxio knows only names");
            FsError::because(Fault::InvalidArgument, detail)
        };
        let (uid, gid) = self.owners.shown(info);
        let names = &self.owners.names;
        let owner = match change.uid.filter(|wanted| *wanted != uid) {
            Some(wanted) => Some(names.user(wanted).ok_or_else(|| unknown("user", wanted))?),
            None => None,
        };
        let group = match change.gid.filter(|wanted| *wanted != gid) {
            Some(wanted) => Some(names.group(wanted).ok_or_else(|| unknown("group", wanted))?),
            None => None,
        };
        Ok((owner.filter(|name| name != info.owner()), group.filter(|name| name != info.group())))
    }

    fn stat_fs(&self, ctx: &Ctx, deadline: Option<Instant>) -> Result<StatFs> {
        let answer = self.bridge.run(ctx, deadline, self.master.block_master_info());
        let answer = answer.map(|info| stat_fs(&info, NAME_MAX));
        self.capacity.learn(answer, Instant::now(), self.options.capacity_refresh)
    }
}

impl FileSystem for AlluxioFs {
    fn stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        let shared = &self.shared;
        let Ok(place) = shared.place(path) else {
            // A name that cannot be stored is not there.
            return Err(Fault::NotFound.into());
        };
        let info = shared.bridge.run(ctx, None, shared.learn(ctx, &place))?;
        Ok(shared.attr(&info))
    }

    fn list(&self, ctx: &Ctx, path: &FsPath) -> Result<Box<dyn Listing>> {
        let place = self.shared.place(path)?;
        Ok(Box::new(AlluxioListing::open(&self.shared, ctx, place)?))
    }

    fn make_dir(&self, ctx: &Ctx, path: &FsPath, mode: u32) -> Result<Attr> {
        let shared = &self.shared;
        let place = shared.place(path)?;
        let info = shared.bridge.run(ctx, None, async {
            shared.master.create_directory(&place, mode).await?;
            let info = shared.master.known_status(&place).await?;
            Ok(shared.adopt(ctx, &place, info).await)
        })?;
        Ok(shared.attr(&info))
    }

    fn remove_file(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        let place = self.shared.place(path)?;
        let removed = self.shared.bridge.run(ctx, None, self.shared.remove(&place, false));
        // Whose place it was to take has failed, and nobody will ask for this again.
        if place.is_beside() && removed.as_ref().is_err_and(may_pass) {
            Unwanted::Beside(place).remove_later(&self.shared);
        }
        removed
    }

    fn remove_seen_file(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        let place = self.shared.place(path)?;
        self.shared.bridge.run(ctx, None, self.shared.remove_seen(&place))
    }

    fn remove_dir(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        let shared = &self.shared;
        let place = shared.place(path)?;
        shared.bridge.run(ctx, None, async {
            // A worker makes the directory anew for a file that it still writes there.
            shared.data.ufs_names.settled(&place).await;
            shared.remove(&place, true).await
        })
    }

    fn replace(&self, ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr> {
        let shared = &self.shared;
        let (new, old) = (shared.place(new)?, shared.place(old)?);
        shared.data.moves.add(1);
        let info = shared.bridge.run(ctx, None, shared.replace(&new, &old))?;
        Ok(shared.attr(&info))
    }

    fn rename(&self, ctx: &Ctx, from: &FsPath, to: &FsPath, mode: RenameMode) -> Result<()> {
        let shared = &self.shared;
        let (from, to) = (shared.place(from)?, shared.place(to)?);
        shared.data.moves.add(1);
        shared.bridge.run(ctx, None, async {
            shared.data.ufs_names.settled(&to).await;
            match mode {
                RenameMode::Replace => shared.rename_over(&from, &to).await,
                RenameMode::NoReplace => shared.master.rename(&from, &to, Destination::Keep).await,
            }
        })
    }

    /// Alluxio cannot set times: they are kept beside the file, or, if that is switched off, accepted without effect,
    /// as its own mount does. A refusal would make `cp -p`, `tar` and `rsync` fail.
    fn set_attr(&self, ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr> {
        let shared = &self.shared;
        let place = shared.place(path)?;
        let info = shared.bridge.run(ctx, None, shared.change(&place, change))?;
        Ok(shared.attr(&info))
    }

    fn xattr(&self, ctx: &Ctx, path: &FsPath, name: &str) -> Result<Bytes> {
        let place = self.shared.place(path)?;
        self.shared.bridge.run(ctx, None, self.shared.xattr(&place, name))
    }

    fn xattrs(&self, ctx: &Ctx, path: &FsPath) -> Result<Vec<String>> {
        let place = self.shared.place(path)?;
        self.shared.bridge.run(ctx, None, self.shared.xattrs(&place))
    }

    fn set_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
        let place = self.shared.place(path)?;
        self.shared.bridge.run(ctx, None, self.shared.set_xattr(&place, name, value, mode))
    }

    fn remove_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str) -> Result<()> {
        let place = self.shared.place(path)?;
        self.shared.bridge.run(ctx, None, self.shared.remove_xattr(&place, name))
    }

    fn stat_fs(&self, ctx: &Ctx) -> Result<StatFs> {
        let (shared, now) = (&self.shared, Instant::now());
        match shared.capacity.fresh(now) {
            Some(stat) => Ok(stat),
            None => shared.stat_fs(ctx, shared.capacity.deadline(now)),
        }
    }

    fn access(&self, ctx: &Ctx, path: &FsPath, mask: u32) -> Result<()> {
        let shared = &self.shared;
        let place = shared.place(path)?;
        shared.bridge.run(ctx, None, async {
            let info = match shared.known(ctx, &place, |_| true) {
                Some(info) => info,
                None => shared.learn(ctx, &place).await?,
            };
            shared.check(&place, &info, mask & 0o7).await
        })
    }

    fn create(
        &self,
        ctx: &Ctx,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(Attr, Box<dyn FileWriter>)> {
        writer::create(&self.shared, ctx, &self.shared.place(path)?, options)
    }

    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        reader::open(&self.shared, ctx, &self.shared.place(path)?)
    }
}
