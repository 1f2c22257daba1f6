//! Names and attributes on a real Alluxio cluster, in process, and what happens when the master is not there.
//!
//! `ALLUXIO_TEST_MASTER` says where the cluster is; `make test` starts one and sets it.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use alluxio_fuse::backend::alluxio::AlluxioFs;
use alluxio_fuse::backend::alluxio::AlluxioOptions;
use alluxio_fuse::backend::alluxio::Authentication;
use alluxio_fuse::backend::alluxio::HostPort;
use alluxio_fuse::backend::alluxio::PathOptions;
use alluxio_fuse::backend::alluxio::RetryTimes;
use alluxio_fuse::backend::alluxio::WriteType;
use alluxio_fuse::backend::alluxio::fetch_configuration;
use alluxio_fuse::fs::Attr;
use alluxio_fuse::fs::Cancel;
use alluxio_fuse::fs::CreateOptions;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::Fault;
use alluxio_fuse::fs::FileKind;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsPath;
use alluxio_fuse::fs::RenameMode;
use alluxio_fuse::fs::Result;
use alluxio_fuse::fs::SetAttr;
use alluxio_fuse::fs::Timestamp;

/// Long enough for a busy machine, short enough to notice a wait that does not end.
const SOON: Duration = Duration::from_secs(20);

fn master() -> HostPort {
    let text = env::var("ALLUXIO_TEST_MASTER").expect(
        "ALLUXIO_TEST_MASTER (host:port) is not set: run `make test`, which starts a cluster and sets it",
    );
    text.parse().expect("ALLUXIO_TEST_MASTER is host:port")
}

fn options() -> AlluxioOptions {
    let paths = PathOptions { write_type: WriteType::MustCache, ..PathOptions::default() };
    AlluxioOptions { masters: vec![master()], paths: paths.into(), ..AlluxioOptions::default() }
}

fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

fn fault<T>(result: Result<T>) -> Fault {
    match result {
        Ok(_) => panic!("succeeded"),
        Err(err) => err.fault(),
    }
}

/// A directory of the cluster that one test has for itself, mounted as the root.
struct Place {
    fs: AlluxioFs,
    outside: AlluxioFs,
    root: FsPath,
}

impl Place {
    fn new(name: &str) -> Self {
        let outside = AlluxioFs::connect(options()).unwrap();
        let root = path(&format!("/metadata-{name}-{}", std::process::id()));
        outside.make_dir(&Ctx::daemon(), &root, 0o755).unwrap();
        let fs = AlluxioFs::connect(AlluxioOptions { root: root.clone(), ..options() }).unwrap();
        Self { fs, outside, root }
    }

    /// The same directory by another connection.
    fn by(&self, change: impl FnOnce(&mut AlluxioOptions)) -> AlluxioFs {
        let mut options = AlluxioOptions { root: self.root.clone(), ..options() };
        change(&mut options);
        AlluxioFs::connect(options).unwrap()
    }

    fn stat(&self, text: &str) -> Result<Attr> {
        self.fs.stat(&Ctx::daemon(), &path(text))
    }

    fn dir(&self, text: &str) -> Attr {
        self.fs.make_dir(&Ctx::daemon(), &path(text), 0o755).unwrap()
    }

    fn file(&self, text: &str) -> Attr {
        let options = CreateOptions { mode: 0o644, replace: false, beside: false };
        let (_, mut writer) = self.fs.create(&Ctx::daemon(), &path(text), &options).unwrap();
        writer.commit(&Ctx::daemon()).unwrap()
    }

    fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        self.fs.rename(&Ctx::daemon(), &path(from), &path(to), mode)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove_tree(&self.outside, &self.root);
    }
}

fn list(fs: &AlluxioFs, dir: &FsPath) -> Result<BTreeMap<String, Attr>> {
    let mut listing = fs.list(&Ctx::daemon(), dir)?;
    let mut entries = BTreeMap::new();
    loop {
        let batch = listing.next_batch(&Ctx::daemon())?;
        if batch.is_empty() {
            return Ok(entries);
        }
        for entry in batch {
            assert!(entries.insert(entry.name, entry.attr).is_none(), "a name came twice");
        }
    }
}

fn remove_tree(fs: &AlluxioFs, dir: &FsPath) {
    let ctx = Ctx::daemon();
    for (name, attr) in list(fs, dir).unwrap() {
        let entry = dir.join(&name).unwrap();
        match attr.kind {
            FileKind::Directory => remove_tree(fs, &entry),
            FileKind::Regular => fs.remove_file(&ctx, &entry).unwrap(),
        }
    }
    fs.remove_dir(&ctx, dir).unwrap();
}

#[test]
fn a_directory_is_made_seen_and_removed() {
    let place = Place::new("dirs");
    let made = place.fs.make_dir(&Ctx::daemon(), &path("/d"), 0o2750).unwrap();
    assert_eq!((made.kind, made.mode, made.nlink), (FileKind::Directory, 0o750, 1));
    assert_eq!(place.stat("/d").unwrap(), made);
    assert_eq!(fault(place.fs.make_dir(&Ctx::daemon(), &path("/d"), 0o755)), Fault::Exists);
    assert_eq!(fault(place.fs.make_dir(&Ctx::daemon(), &path("/no/d"), 0o755)), Fault::NotFound);

    place.dir("/d/sub");
    assert_eq!(place.stat("/d").unwrap().size, 1, "the number of children");
    assert_eq!(fault(place.fs.remove_dir(&Ctx::daemon(), &path("/d"))), Fault::NotEmpty);
    place.fs.remove_dir(&Ctx::daemon(), &path("/d/sub")).unwrap();
    place.fs.remove_dir(&Ctx::daemon(), &path("/d")).unwrap();
    assert_eq!(fault(place.stat("/d")), Fault::NotFound);
    assert_eq!(fault(place.fs.remove_dir(&Ctx::daemon(), &path("/d"))), Fault::NotFound);
}

#[test]
fn every_entry_has_its_own_number_which_a_rename_keeps() {
    let place = Place::new("ids");
    let (one, two) = (place.dir("/one"), place.dir("/two"));
    let root = place.outside.stat(&Ctx::daemon(), &FsPath::root()).unwrap();
    let here = place.stat("/").unwrap();
    let mut ids = vec![one.id, two.id, root.id, here.id];
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert!(!ids.contains(&0));
    place.rename("/one", "/three", RenameMode::Replace).unwrap();
    assert_eq!(place.stat("/three").unwrap().id, one.id);
}

#[test]
fn removing_asks_for_the_right_kind() {
    let place = Place::new("kinds");
    place.dir("/d");
    place.file("/f");
    assert_eq!(fault(place.fs.remove_file(&Ctx::daemon(), &path("/d"))), Fault::IsDirectory);
    assert_eq!(fault(place.fs.remove_dir(&Ctx::daemon(), &path("/f"))), Fault::NotDirectory);
    assert_eq!(fault(place.stat("/f/below")), Fault::NotDirectory);
    assert_eq!(fault(place.fs.make_dir(&Ctx::daemon(), &path("/f/below"), 0o755)), Fault::NotDirectory);
    assert_eq!(fault(list(&place.fs, &path("/f"))), Fault::NotDirectory);
    place.stat("/d").unwrap();
    place.stat("/f").unwrap();
    // Who has seen a file there is not asked to look again.
    let remove_seen = |at| place.fs.remove_seen_file(&Ctx::daemon(), &path(at));
    place.file("/d/below");
    assert_eq!(fault(remove_seen("/d")), Fault::IsDirectory);
    place.stat("/d/below").unwrap();
    remove_seen("/f").unwrap();
    assert_eq!(fault(remove_seen("/f")), Fault::NotFound);
}

#[test]
fn a_listing_has_all_entries_with_their_attributes() {
    let place = Place::new("list");
    assert!(list(&place.fs, &FsPath::root()).unwrap().is_empty());
    assert_eq!(fault(list(&place.fs, &path("/none"))), Fault::NotFound);
    for number in 0..40 {
        place.dir(&format!("/d{number:02}"));
    }
    place.file("/f");
    let entries = list(&place.fs, &FsPath::root()).unwrap();
    assert_eq!(entries.len(), 41);
    for (name, attr) in &entries {
        assert_eq!(*attr, place.stat(&format!("/{name}")).unwrap(), "{name}");
    }
    assert_eq!(list(&place.outside, &place.root).unwrap(), entries);
}

#[test]
fn a_long_listing_is_complete_and_can_be_left_early() {
    let place = Place::new("long");
    thread::scope(|scope| {
        for part in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for number in 0..100 {
                    place.dir(&format!("/a name that takes some room in the message {part}-{number}"));
                }
            });
        }
    });
    drop(place.fs.list(&Ctx::daemon(), &FsPath::root()).unwrap());
    assert_eq!(list(&place.fs, &FsPath::root()).unwrap().len(), 400);
}

#[test]
fn names_come_back_as_they_were_given() {
    let place = Place::new("names");
    let names = [" a b ", "%20", "a*b#c", "a:b;c", "line\nbreak", "ünï", "…", "-", "\u{1}", "x.."];
    for name in names {
        place.fs.make_dir(&Ctx::daemon(), &FsPath::root().join(name).unwrap(), 0o755).unwrap();
    }
    let mut seen: Vec<String> = list(&place.fs, &FsPath::root()).unwrap().into_keys().collect();
    seen.sort();
    let mut given: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    given.sort();
    assert_eq!(seen, given);
}

#[test]
fn a_backslash_is_refused_and_makes_no_directories() {
    let place = Place::new("backslash");
    place.dir("/a");
    let err = place.fs.make_dir(&Ctx::daemon(), &path("/a\\b"), 0o755).unwrap_err();
    assert_eq!(err.fault(), Fault::InvalidArgument);
    assert!(err.to_string().contains("backslash"), "{err}");
    assert_eq!(fault(place.rename("/a", "/c\\d", RenameMode::Replace)), Fault::InvalidArgument);
    assert_eq!(fault(place.stat("/a\\b")), Fault::NotFound);
    assert_eq!(place.stat("/a").unwrap().size, 0);
}

#[test]
fn a_question_mark_is_refused_and_does_not_hit_the_name_before_it() {
    let place = Place::new("question");
    place.dir("/a");
    assert_eq!(fault(place.fs.make_dir(&Ctx::daemon(), &path("/b?c"), 0o755)), Fault::InvalidArgument);
    assert_eq!(fault(place.stat("/a?b")), Fault::NotFound);
    assert_eq!(fault(place.fs.remove_dir(&Ctx::daemon(), &path("/a?b"))), Fault::InvalidArgument);
    assert_eq!(list(&place.fs, &FsPath::root()).unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_rename_replaces_only_what_rename_may_replace() {
    use RenameMode::NoReplace;
    use RenameMode::Replace;

    let place = Place::new("rename");
    place.dir("/d");
    place.dir("/full");
    place.dir("/full/x");
    place.dir("/empty");
    place.file("/f");
    let g = place.file("/g");

    assert_eq!(fault(place.rename("/none", "/x", Replace)), Fault::NotFound);
    assert_eq!(fault(place.rename("/none", "/f", Replace)), Fault::NotFound);
    assert_eq!(fault(place.rename("/d", "/no/x", Replace)), Fault::NotFound);
    assert_eq!(fault(place.rename("/d", "/f", Replace)), Fault::NotDirectory);
    assert_eq!(fault(place.rename("/f", "/d", Replace)), Fault::IsDirectory);
    assert_eq!(fault(place.rename("/d", "/full", Replace)), Fault::NotEmpty);
    assert_eq!(fault(place.rename("/d", "/d/below", Replace)), Fault::InvalidArgument);
    assert_eq!(fault(place.rename("/d", "/f/below", Replace)), Fault::NotDirectory);
    assert_eq!(fault(place.rename("/g", "/f", NoReplace)), Fault::Exists);
    place.stat("/full/x").unwrap();

    place.rename("/f", "/f", Replace).unwrap();
    place.rename("/g", "/f", Replace).unwrap();
    assert_eq!(place.stat("/f").unwrap().id, g.id);
    place.rename("/d", "/empty", Replace).unwrap();
    place.rename("/empty", "/full/e", NoReplace).unwrap();
    let left: Vec<String> = list(&place.fs, &FsPath::root()).unwrap().into_keys().collect();
    assert_eq!(left, ["f", "full"]);
}

#[test]
fn mode_owner_and_times_change() {
    let place = Place::new("attrs");
    let (fs, ctx) = (&place.fs, Ctx::daemon());
    let before = place.dir("/d");
    let chmod = SetAttr { mode: Some(0o4711), ..SetAttr::default() };
    assert_eq!(fault(fs.set_attr(&ctx, &path("/d"), &chmod)), Fault::NotPermitted, "the first bit");
    assert_eq!(place.stat("/d").unwrap().mode, 0o711);

    // What is shown already is no change, so that nobody needs a right for it.
    let same = SetAttr { uid: Some(before.uid), gid: Some(before.gid), ..SetAttr::default() };
    fs.set_attr(&ctx, &path("/d"), &same).unwrap();

    let times = SetAttr {
        mtime: Some(Timestamp::from_millis(1)),
        atime: Some(Timestamp::now()),
        ..SetAttr::default()
    };
    let changed = fs.set_attr(&ctx, &path("/d"), &times).unwrap();
    assert_eq!((Some(changed.mtime), Some(changed.atime)), (times.mtime, times.atime));
    assert_eq!(place.stat("/d").unwrap(), changed);
    assert_eq!(list(fs, &FsPath::root()).unwrap()["d"], changed);
    let without = place.by(|options| options.times = false);
    assert_eq!(without.stat(&ctx, &path("/d")).unwrap().mtime, before.mtime);

    let nobody = SetAttr { uid: Some(4_000_000_007), ..SetAttr::default() };
    let err = fs.set_attr(&ctx, &path("/d"), &nobody).unwrap_err();
    assert_eq!(err.fault(), Fault::InvalidArgument);
    assert!(err.to_string().contains("4000000007"), "{err}");
    assert_eq!(fault(fs.set_attr(&ctx, &path("/none"), &chmod)), Fault::NotFound);
}

#[test]
fn owners_of_this_host_are_shown_and_set_by_name() {
    use alluxio_fuse::backend::alluxio::OwnerPolicy;

    let place = Place::new("owners");
    let fs = place.by(|options| options.owner_policy = OwnerPolicy::SystemUser);
    let ctx = Ctx::daemon();
    let made = fs.make_dir(&ctx, &path("/d"), 0o755).unwrap();
    assert_eq!((made.uid, made.gid), (ctx.uid, ctx.gid));
    let Some(daemon) = nix::unistd::User::from_name("daemon").unwrap() else {
        panic!("this host has no user `daemon` to test with");
    };
    let change =
        SetAttr { uid: Some(daemon.uid.as_raw()), gid: Some(daemon.gid.as_raw()), ..SetAttr::default() };
    let after = fs.set_attr(&ctx, &path("/d"), &change).unwrap();
    assert_eq!((after.uid, after.gid), (daemon.uid.as_raw(), daemon.gid.as_raw()));
    assert_eq!(fs.stat(&ctx, &path("/d")).unwrap(), after);
}

#[test]
fn the_login_user_counts() {
    let place = Place::new("users");
    place.dir("/d");
    let chmod = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    place.fs.set_attr(&Ctx::daemon(), &path("/d"), &chmod).unwrap();
    let alice = place.by(|options| options.user = "alice".to_owned());
    let ctx = Ctx::daemon();
    assert_eq!(fault(alice.make_dir(&ctx, &path("/x"), 0o755)), Fault::PermissionDenied);
    assert_eq!(fault(alice.remove_dir(&ctx, &path("/d"))), Fault::PermissionDenied);
    assert_eq!(fault(list(&alice, &path("/d"))), Fault::PermissionDenied);
    assert_eq!(
        fault(alice.set_attr(&ctx, &path("/d"), &SetAttr { mode: Some(0), ..SetAttr::default() })),
        Fault::NotPermitted
    );
    assert_eq!(fault(alice.access(&ctx, &path("/d"), 4)), Fault::PermissionDenied);
    alice.access(&ctx, &path("/"), 5).unwrap();
    alice.access(&ctx, &path("/d"), 0).unwrap();
    place.fs.access(&ctx, &path("/d"), 7).unwrap();
    assert_eq!(fault(place.fs.access(&ctx, &path("/none"), 0)), Fault::NotFound);
}

#[test]
fn capacity_is_that_of_the_workers() {
    let place = Place::new("statfs");
    let stat = place.fs.stat_fs(&Ctx::daemon()).unwrap();
    assert_eq!((stat.block_size, stat.name_max), (16384, 255));
    assert!(stat.blocks > 0 && stat.blocks_free <= stat.blocks, "{stat:?}");
}

#[test]
fn what_did_not_take_the_place_that_it_was_made_for_is_removed_by_the_next_process() {
    let place = Place::new("beside");
    let journal = tempfile::tempdir().unwrap();
    let connect = || place.by(|options| options.journal_dir = Some(journal.path().to_owned()));
    let ctx = Ctx::daemon();
    let old = path("/old");
    place.file("/old");
    let names = [old.beside().unwrap(), old.beside().unwrap(), path("/.alluxio-fuse.a-user-s")];
    let fs = connect();
    for (name, beside) in names.iter().zip([true, true, false]) {
        let options = CreateOptions { mode: 0o644, replace: false, beside };
        let (_, mut writer) = fs.create(&ctx, name, &options).unwrap();
        writer.append(&ctx, b"new").unwrap();
        writer.commit(&ctx).unwrap();
    }
    // The first takes its place. The second does not come to it.
    fs.replace(&ctx, &names[0], &old).unwrap();
    drop(fs);

    let fs = connect();
    let start = Instant::now();
    while fs.stat(&ctx, &names[1]).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(60), "it is still there");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fs.stat(&ctx, &old).unwrap().size, 3);
    assert_eq!(fs.stat(&ctx, &names[2]).unwrap().size, 3, "somebody else's name is left alone");
}

#[test]
fn the_configuration_of_the_cluster_is_handed_out() {
    let configuration = fetch_configuration(&options()).unwrap();
    let property =
        |name: &str| configuration.properties.iter().find(|property| property.name == name).unwrap();
    assert!(configuration.properties.len() > 500, "{}", configuration.properties.len());
    assert!(property("alluxio.master.hostname").value.is_some());
    let block_size = property("alluxio.user.block.size.bytes.default");
    assert!(!block_size.source.is_empty() && block_size.value.is_some());
    let fs = AlluxioFs::connect(options()).unwrap();
    let hashes = fs.configuration_hashes(&Ctx::daemon()).unwrap();
    assert_eq!(hashes, (configuration.hash, configuration.path_hash));
    assert_eq!(hashes.0.len(), 32);
}

#[test]
fn a_root_that_is_not_there_or_no_directory_is_refused() {
    let place = Place::new("roots");
    place.file("/f");
    let connect = |name: &str| {
        let root = path(name).under(&place.root);
        AlluxioFs::connect(AlluxioOptions { root, ..options() }).err().unwrap()
    };
    let missing = connect("/none");
    assert_eq!(missing.fault(), Fault::NotFound);
    assert!(missing.to_string().contains("/none does not exist"), "{missing}");
    assert_eq!(connect("/f").fault(), Fault::NotDirectory);
}

#[test]
fn a_cluster_that_wants_authentication_says_so() {
    let options = AlluxioOptions { authentication: Authentication::NoSasl, ..options() };
    let err = AlluxioFs::connect(options).err().unwrap();
    assert_eq!(err.fault(), Fault::PermissionDenied);
    assert!(err.to_string().contains("alluxio.security.authentication.type=SIMPLE"), "{err}");
}

// What follows stands a proxy, or nothing, in the place of the master.

fn quick() -> AlluxioOptions {
    AlluxioOptions {
        rpc_retry: RetryTimes {
            base: Duration::from_millis(10),
            max: Duration::from_millis(50),
            total: Duration::from_millis(500),
        },
        polling_timeout: Duration::from_millis(300),
        ..options()
    }
}

/// An address where nobody listens.
fn nobody() -> HostPort {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    HostPort::new("127.0.0.1", listener.local_addr().unwrap().port())
}

#[test]
fn a_master_that_is_not_there_is_given_up_in_the_time_for_retries() {
    let address = nobody();
    let began = Instant::now();
    let err = AlluxioFs::connect(AlluxioOptions { masters: vec![address.clone()], ..quick() }).err().unwrap();
    assert!(began.elapsed() < SOON);
    assert_eq!(err.fault(), Fault::Unavailable);
    for part in ["gave up after", "no primary master", &address.to_string(), "refused"] {
        assert!(err.to_string().contains(part), "{part}: {err}");
    }
}

#[test]
fn a_master_that_does_not_answer_is_given_up_in_the_time_for_retries() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = HostPort::new("127.0.0.1", listener.local_addr().unwrap().port());
    let began = Instant::now();
    let err = AlluxioFs::connect(AlluxioOptions { masters: vec![address], ..quick() }).err().unwrap();
    assert!(began.elapsed() < SOON);
    assert_eq!(err.fault(), Fault::Unavailable);
    assert!(err.to_string().contains("no answer within"), "{err}");
}

#[test]
fn the_primary_is_found_behind_dead_masters() {
    let masters = vec![nobody(), nobody(), master()];
    let fs = AlluxioFs::connect(AlluxioOptions { masters, ..quick() }).unwrap();
    assert_eq!(fs.stat(&Ctx::daemon(), &FsPath::root()).unwrap().kind, FileKind::Directory);
}

#[test]
fn after_a_broken_connection_the_next_call_works() {
    let proxy = Proxy::start();
    let fs = AlluxioFs::connect(AlluxioOptions { masters: vec![proxy.address()], ..options() }).unwrap();
    for _ in 0..3 {
        proxy.cut();
        fs.stat(&Ctx::daemon(), &FsPath::root()).unwrap();
    }
    assert!(proxy.accepted() > 3);
}

#[test]
fn a_call_waits_for_the_master_to_come_back() {
    let proxy = Proxy::start();
    let fs = AlluxioFs::connect(AlluxioOptions { masters: vec![proxy.address()], ..options() }).unwrap();
    proxy.set(Mode::Down);
    let before = proxy.accepted();
    thread::scope(|scope| {
        let stat = scope.spawn(|| fs.stat(&Ctx::daemon(), &FsPath::root()));
        proxy.wait_for(|accepted| accepted > before + 3);
        proxy.set(Mode::Forward);
        assert_eq!(stat.join().unwrap().unwrap().kind, FileKind::Directory);
    });
}

#[test]
fn the_last_known_capacity_is_shown_while_the_master_is_away() {
    let proxy = Proxy::start();
    let masters = vec![proxy.address()];
    let fs = AlluxioFs::connect(AlluxioOptions { masters, capacity_refresh: Duration::ZERO, ..options() });
    let fs = fs.unwrap();
    proxy.set(Mode::Down);
    let began = Instant::now();
    // Never asked for before, and with the usual two minutes for retries.
    let away = fs.stat_fs(&Ctx::daemon()).unwrap();
    assert!(away.blocks > 0 && began.elapsed() < SOON, "{away:?}");
    assert_eq!(fs.stat_fs(&Ctx::daemon()).unwrap(), away);
}

#[test]
fn a_dead_master_ends_a_call_in_the_time_for_retries() {
    let proxy = Proxy::start();
    let fs = AlluxioFs::connect(AlluxioOptions { masters: vec![proxy.address()], ..quick() }).unwrap();
    proxy.set(Mode::Down);
    let began = Instant::now();
    let err = fs.stat(&Ctx::daemon(), &FsPath::root()).unwrap_err();
    assert!(began.elapsed() < SOON);
    assert_eq!(err.fault(), Fault::Unavailable);
}

#[test]
fn an_interrupt_ends_a_wait_for_an_answer_and_a_wait_for_a_retry() {
    let proxy = Proxy::start();
    let fs = AlluxioFs::connect(AlluxioOptions { masters: vec![proxy.address()], ..options() }).unwrap();
    for mode in [Mode::Silent, Mode::Down] {
        proxy.set(mode);
        let seen = proxy.traffic();
        let cancel = Cancel::new();
        thread::scope(|scope| {
            let stat = scope.spawn(|| fs.stat(&Ctx::new(0, 0, 0, &cancel), &FsPath::root()));
            proxy.wait_for_traffic(seen);
            let began = Instant::now();
            cancel.cancel();
            assert_eq!(fault(stat.join().unwrap()), Fault::Interrupted);
            assert!(began.elapsed() < Duration::from_secs(5), "{mode:?}");
        });
    }
    proxy.set(Mode::Forward);
    fs.stat(&Ctx::daemon(), &FsPath::root()).unwrap();
}

#[test]
fn a_change_whose_answer_was_lost_is_made_once() {
    let place = Place::new("once");
    let proxy = Proxy::start();
    let fs = place.by(|options| options.masters = vec![proxy.address()]);
    // The request goes through; the connection is cut where its answer should come back.
    proxy.set(Mode::LoseAnswers);
    fs.make_dir(&Ctx::daemon(), &path("/made"), 0o755).unwrap();
    proxy.set(Mode::LoseAnswers);
    fs.rename(&Ctx::daemon(), &path("/made"), &path("/moved"), RenameMode::NoReplace).unwrap();
    assert_eq!(proxy.lost(), 2);
    let names: Vec<String> = list(&place.fs, &FsPath::root()).unwrap().into_keys().collect();
    assert_eq!(names, ["moved"]);
}

/// What a proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Every connection is closed at once.
    Down,
    /// Everything is taken, and nothing given back.
    Silent,
    /// The next bytes from the master are dropped, the connection is cut, and all is as before.
    LoseAnswers,
}

/// Stands before the master of the tests.
struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    mode: Mutex<Mode>,
    streams: Mutex<Vec<TcpStream>>,
    accepted: AtomicU32,
    /// Pieces that came from the client.
    pieces: AtomicU32,
    lost: AtomicU32,
    changed: (Mutex<()>, Condvar),
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            mode: Mutex::new(Mode::Forward),
            streams: Mutex::default(),
            accepted: AtomicU32::new(0),
            pieces: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            changed: (Mutex::new(()), Condvar::new()),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.tell();
                if *shared.mode.lock().unwrap() != Mode::Down {
                    shared.serve(client);
                }
            }
        });
        Self { port, state }
    }

    fn address(&self) -> HostPort {
        HostPort::new("127.0.0.1", self.port)
    }

    fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
        if mode == Mode::Down || mode == Mode::Forward {
            self.cut();
        }
    }

    fn cut(&self) {
        self.state.cut();
    }

    fn accepted(&self) -> u32 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    fn lost(&self) -> u32 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Connections and pieces so far.
    fn traffic(&self) -> u32 {
        self.accepted() + self.state.pieces.load(Ordering::SeqCst)
    }

    fn wait_for_traffic(&self, seen: u32) {
        self.state.wait(|| self.traffic() > seen);
    }

    fn wait_for(&self, done: impl Fn(u32) -> bool) {
        self.state.wait(|| done(self.accepted()));
    }
}

impl State {
    fn tell(&self) {
        drop(self.changed.0.lock().unwrap());
        self.changed.1.notify_all();
    }

    fn wait(&self, done: impl Fn() -> bool) {
        let guard = self.changed.0.lock().unwrap();
        let (_guard, waited) = self.changed.1.wait_timeout_while(guard, SOON, |()| !done()).unwrap();
        assert!(!waited.timed_out(), "nothing happened");
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            // An error means that it is closed already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    fn serve(self: &Arc<Self>, client: TcpStream) {
        let master = master();
        let server = TcpStream::connect((master.host.as_str(), master.port)).unwrap();
        let mut streams = self.streams.lock().unwrap();
        streams.push(client.try_clone().unwrap());
        streams.push(server.try_clone().unwrap());
        let (client_out, server_out) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || up.copy(client, server_out, true));
        thread::spawn(move || down.copy(server, client_out, false));
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, from_client: bool) {
        let mut buf = vec![0; 1 << 16];
        loop {
            let len = match from.read(&mut buf) {
                Ok(0) => break,
                Ok(len) => len,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if !from_client && !self.lets_pass() {
                continue;
            }
            if to.write_all(&buf[..len]).is_err() {
                break;
            }
            if from_client {
                self.pieces.fetch_add(1, Ordering::SeqCst);
                self.tell();
            }
        }
        // The other half may be closed already.
        let _closed = to.shutdown(Shutdown::Both);
        let _closed = from.shutdown(Shutdown::Both);
    }

    /// Whether bytes from the master go on to the client.
    fn lets_pass(&self) -> bool {
        let mut mode = self.mode.lock().unwrap();
        match *mode {
            Mode::Forward | Mode::Down => true,
            Mode::Silent => false,
            Mode::LoseAnswers => {
                *mode = Mode::Forward;
                drop(mode);
                self.lost.fetch_add(1, Ordering::SeqCst);
                self.cut();
                false
            }
        }
    }
}
