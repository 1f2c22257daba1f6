//! When a server dies, applications get an error in bounded time or can be interrupted, and the same mount
//! serves again when the server is back.
//!
//! The tests end servers of the one cluster, so one runs at a time.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

mod common;

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;

use common::cluster::Cluster;
use common::cluster::Down;
use common::cluster::OwnCluster;
use common::cluster::RemoteDir;
use common::cluster::Suspended;
use common::content;
use common::disk::SmallDisk;
use common::holds_within;
use common::mount::Mount;
use common::mount::Spec;
use common::mount::is_mounted;
use common::process;
use common::wait_until;

/// How long the mounts of these tests may try again.
const RETRY: &str = "2sec";
/// What is bounded time, then: a few tries in a row, on a busy machine.
const BOUND: Duration = Duration::from_secs(20);
/// How soon a server that is back is found.
const RECOVERY: Duration = Duration::from_secs(30);
const SIZE: u64 = 3_000_001;

#[test]
fn reads_and_writes_fail_in_bounded_time_without_workers_and_work_again_with_them() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("no-workers");
    let mount = impatient(&cluster, &dir).start();
    let old = mount.path().join("old");
    content::write_file(&old, 1, SIZE).unwrap();
    content::check_file(&old, 1, SIZE).unwrap();

    let down = cluster.kill_all_workers();
    fail_in_bounded_time(Command::new("cat").arg(&old), &mount);
    let mut write = Command::new("dd");
    write
        .args(["if=/dev/zero", "bs=1M", "count=3"])
        .arg(format!("of={}", mount.path().join("new").display()));
    fail_in_bounded_time(&mut write, &mount);

    down.into_iter().for_each(Down::run);
    reads_again(&old, 1);
    writes_again(&mount.path().join("after"), 2);
    mount.unmount();
}

#[test]
fn a_dead_worker_is_left_for_the_other() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("one-worker");
    let mount = impatient(&cluster, &dir).start();
    let path = |n: u64| mount.path().join(format!("file{n}"));
    // Enough for both workers to have some; all are in the store, too.
    for n in 0..8 {
        content::write_file(&path(n), n, SIZE).unwrap();
    }

    let down = cluster.kill("worker1");
    for n in 0..8 {
        content::check_file(&path(n), n, SIZE).unwrap();
    }
    for n in 8..16 {
        content::write_file(&path(n), n, SIZE).unwrap();
    }
    for n in 8..16 {
        content::check_file(&path(n), n, SIZE).unwrap();
    }
    down.run();
    mount.unmount();
}

#[test]
fn what_is_persisted_later_outlives_as_many_workers_as_the_property_says() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("copies");
    for (worker, short_circuit) in cluster.workers().into_iter().zip(["true", "false"]) {
        let mount = impatient(&cluster, &dir)
            .property("alluxio.user.file.writetype.default", "ASYNC_THROUGH")
            .property("alluxio.user.file.replication.durable", "2")
            .property("alluxio.user.block.size.bytes.default", "1MB")
            .property("alluxio.user.short.circuit.enabled", short_circuit)
            .start();
        let file = mount.path().join(&worker);
        content::write_file(&file, 9, SIZE).unwrap();
        let down = cluster.kill(&worker);
        content::check_file(&file, 9, SIZE).unwrap();
        down.run();
        mount.unmount();
    }
}

#[test]
fn calls_fail_in_bounded_time_without_a_master_and_work_again_with_it() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("no-master");
    let mount = impatient(&cluster, &dir).start();
    let old = mount.path().join("old");
    content::write_file(&old, 3, SIZE).unwrap();

    let down = cluster.kill("master");
    fail_in_bounded_time(Command::new("stat").arg(mount.path().join("never seen")), &mount);
    fail_in_bounded_time(Command::new("mkdir").arg(mount.path().join("directory")), &mount);
    fail_in_bounded_time(Command::new("touch").arg(mount.path().join("file")), &mount);

    down.run();
    reads_again(&old, 3);
    writes_again(&mount.path().join("after"), 4);
    assert!(!mount.path().join("directory").exists(), "the mkdir that failed was done");
    mount.unmount();
}

#[test]
fn a_block_of_workers_that_a_new_master_does_not_know_yet_is_waited_for() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("untold-workers");
    let mount = patient(&cluster, &dir).property("alluxio.user.file.writetype.default", "MUST_CACHE").start();
    let path = mount.path().join("file");
    content::write_file(&path, 3, SIZE).unwrap();
    let workers = cluster.kill_all_workers();
    cluster.kill("master").run();
    let reader = thread::spawn(move || content::check_file(&path, 3, SIZE));
    workers.into_iter().for_each(Down::run);
    reader.join().unwrap().unwrap();
    mount.unmount();
}

#[test]
fn an_interrupt_ends_a_cat_that_waits_for_a_worker() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("interrupt-worker");
    let mount = patient(&cluster, &dir).start();
    let file = mount.path().join("file");
    content::write_file(&file, 5, SIZE).unwrap();

    let down = cluster.kill_all_workers();
    interrupt_while_it_waits(start_interruptible("cat", &file), &mount);
    down.into_iter().for_each(Down::run);
    reads_again(&file, 5);
    mount.unmount();
}

#[test]
fn an_interrupt_ends_a_cat_that_waits_for_the_master() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("interrupt-master");
    let mount = patient(&cluster, &dir).start();
    let file = mount.path().join("file");
    content::write_file(&file, 6, SIZE).unwrap();

    let down = cluster.kill("master");
    interrupt_while_it_waits(start_interruptible("cat", &mount.path().join("never seen")), &mount);
    down.run();
    reads_again(&file, 6);
    mount.unmount();
}

#[test]
fn a_worker_that_hangs_is_left_for_the_other() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    for short_circuit in ["false", "true"] {
        let dir = cluster.directory("hung-worker");
        let mount =
            hasty(&cluster, &dir).property("alluxio.user.short.circuit.enabled", short_circuit).start();
        let path = |n: u64| mount.path().join(format!("file{n}"));
        for n in 0..4 {
            content::write_file(&path(n), n, SIZE).unwrap();
        }
        // Local workers are taken in the order of their ports, so nobody can say which it is.
        for name in cluster.workers() {
            let hung = cluster.suspend(&name);
            let began = Instant::now();
            for n in 0..4 {
                content::check_file(&path(n), n, SIZE).unwrap();
            }
            content::write_file(&mount.path().join(&name), 9, SIZE).unwrap();
            assert!(began.elapsed() < BOUND, "{name} hung, and that took {:?}", began.elapsed());
            drop(hung);
            content::check_file(&mount.path().join(&name), 9, SIZE).unwrap();
        }
        // Who has waited for a worker in vain does not wait for it again at the next file.
        assert!(mount.counted("opens for reading (error)") <= 2);
        mount.unmount();
    }
}

#[test]
fn without_a_worker_that_answers_reads_and_writes_fail_in_bounded_time_and_the_rest_works() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("hung-workers");
    // A worker that goes on may make an empty file in the under store, for a stream that was ended while it hung.
    let mount = hasty(&cluster, &dir).property("alluxio.user.file.writetype.default", "MUST_CACHE").start();
    let old = mount.path().join("old");
    content::write_file(&old, 1, SIZE).unwrap();

    let hung: Vec<Suspended> = cluster.workers().iter().map(|name| cluster.suspend(name)).collect();
    fail_in_bounded_time(Command::new("cat").arg(&old), &mount);
    let mut write = Command::new("dd");
    write
        .args(["if=/dev/zero", "bs=1M", "count=8"])
        .arg(format!("of={}", mount.path().join("new").display()));
    fail_in_bounded_time(&mut write, &mount);
    for command in [
        Command::new("stat").arg(&old),
        Command::new("df").arg(mount.path()),
        Command::new("ls").arg(mount.path()),
    ] {
        process::succeed(command, Duration::from_secs(5));
    }
    drop(hung);
    reads_again(&old, 1);
    writes_again(&mount.path().join("after"), 2);
    wait_until("what was written is removed", RECOVERY, || !mount.path().join("new").exists());
    mount.unmount();
}

#[test]
fn while_workers_hang_an_interrupt_ends_a_cat_and_unmount_by_force_the_mount() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    for word in ["direct_io", "io_uring"] {
        let dir = cluster.directory("hung-interrupt");
        let mount = patient(&cluster, &dir).option(word).start();
        let file = mount.path().join("file");
        content::write_file(&file, 3, SIZE).unwrap();

        let hung: Vec<Suspended> = cluster.workers().iter().map(|name| cluster.suspend(name)).collect();
        interrupt_while_it_waits(start_interruptible("cat", &file), &mount);
        let mut waiting = start_interruptible("cat", &file);
        process::wait_until_in_fuse(&waiting);
        // Others are served, on whatever processor they ask.
        for _ in 0..20 {
            process::succeed(Command::new("stat").arg(mount.path()), BOUND);
        }
        mount.unmount_by_force();
        let status = process::status_within(&mut waiting, BOUND).expect("the cat outlives the mount");
        assert!(!status.success(), "{status}");
        drop(hung);
    }
}

#[test]
fn while_the_master_hangs_an_interrupt_ends_a_stat_and_unmount_by_force_the_mount() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("hung-master");
    let mount = patient(&cluster, &dir).start();
    let file = mount.path().join("file");
    content::write_file(&file, 4, SIZE).unwrap();

    let hung = cluster.suspend("master");
    interrupt_while_it_waits(start_interruptible("cat", &mount.path().join("never seen")), &mount);
    drop(hung);
    reads_again(&file, 4);
    writes_again(&mount.path().join("after"), 5);

    let hung = cluster.suspend("master");
    let mut waiting = start_interruptible("cat", &mount.path().join("never seen either"));
    process::wait_until_in_fuse(&waiting);
    mount.unmount_by_force();
    let status = process::status_within(&mut waiting, BOUND).expect("the cat outlives the mount");
    assert!(!status.success(), "{status}");
    drop(hung);
}

/// A file is read and another one written, a little at a time, while `unmount` is called: what came of the write.
fn unmounted_meanwhile(mount: Mount, old: &Path, new: &Path) -> std::io::Result<()> {
    let [(reads, reading), (writes, writing)] = [std::sync::mpsc::channel(), std::sync::mpsc::channel()];
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut file = File::open(old)?;
            let mut piece = vec![0; 50_000];
            for offset in (0..SIZE).step_by(piece.len()) {
                file.read_exact(&mut piece[..50_000.min((SIZE - offset) as usize)])?;
                let _ = reads.send(());
            }
            std::io::Result::Ok(())
        });
        let writer = scope.spawn(move || {
            let mut file = File::create_new(new)?;
            let mut bytes = vec![0; SIZE as usize];
            content::fill(8, 0, &mut bytes);
            for piece in bytes.chunks(50_000) {
                file.write_all(piece)?;
                let _ = writes.send(());
            }
            // Where another program would lose the error of its close.
            nix::unistd::close(file).map_err(Into::into)
        });
        // Who has not opened his file by then is refused, or cut off.
        reading.recv().unwrap();
        writing.recv().unwrap();
        mount.unmount();
        // One that was cut off fails, and does not hang.
        drop(reader.join().unwrap());
        writer.join().unwrap()
    })
}

#[test]
fn an_unmount_while_files_are_read_and_written_waits_for_them_or_leaves_no_part_of_one() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    for timeout in ["60sec", "0"] {
        let dir = cluster.directory("unmounted");
        let spec = impatient(&cluster, &dir).property("alluxio.fuse.umount.timeout", timeout);
        let mount = spec.start();
        let (old, new) = (mount.path().join("old"), mount.path().join("new"));
        content::write_file(&old, 7, SIZE).unwrap();
        let written = unmounted_meanwhile(mount, &old, &new);
        assert!(timeout == "0" || written.is_ok(), "{written:?}");
        let mount = spec.start();
        content::check_file(&mount.path().join("old"), 7, SIZE).unwrap();
        let new = mount.path().join("new");
        match written {
            Ok(()) => content::check_file(&new, 8, SIZE).unwrap(),
            // A close that got no answer may have been carried out all the same.
            Err(_) => wait_until("it is whole or gone", BOUND, || {
                !new.exists() || content::check_file(&new, 8, SIZE).is_ok()
            }),
        }
        mount.unmount();
    }
}

#[test]
fn an_unmount_waits_for_a_file_that_is_only_being_made() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("being-made");
    // So that the first thing asked about the file is to make it. (With O_EXCL the kernel would look it up once more.)
    let spec = patient(&cluster, &dir)
        .property("alluxio.fuse.umount.timeout", "60sec")
        .option("negative_timeout=3600");
    let mount = spec.start();
    let here = tempfile::tempdir().unwrap();
    let (new, source) = (mount.path().join("new"), here.path().join("source"));
    content::write_file(&source, 9, SIZE).unwrap();
    assert!(!new.exists());

    let hung = cluster.suspend("master");
    let operands = [format!("if={}", source.display()), format!("of={}", new.display())];
    let mut copy = Command::new("dd").args(["bs=1M", "status=none"]).args(operands).spawn().unwrap();
    // What has not reached the mount by then is refused.
    wait_until_a_server_is_asked(&mount, &copy);
    process::signal(mount.pid(), Signal::SIGTERM);
    let waits = || !mount.logged("Waiting for all in progress file read/write").is_empty();
    wait_until("the mount waits for its end", BOUND, waits);
    drop(hung);
    let status = process::status_within(&mut copy, BOUND).expect("the copy hangs");
    assert!(status.success(), "{status}\n{}", mount.said());
    wait_until("the mount has gone", BOUND, || !is_mounted(mount.path()));
    mount.unmount();

    let mount = spec.start();
    content::check_file(&mount.path().join("new"), 9, SIZE).unwrap();
    mount.unmount();
}

#[test]
fn without_a_master_a_mount_goes_as_always() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("deserted");
    let mount = patient(&cluster, &dir).start();
    content::write_file(&mount.path().join("file"), 9, SIZE).unwrap();
    let down = cluster.kill("master");
    mount.unmount();
    down.run();
}

#[test]
fn a_full_worker_and_a_full_under_store_are_enospc_and_leave_nothing() {
    let _one = one_at_a_time();
    let store = SmallDisk::new(24);
    let root = format!("alluxio.master.mount.table.root.ufs={}", store.path().display());
    let own = OwnCluster::start(&["--workers", "1", "--ram", "48MB", "-D", &root]);
    let write = |mount: &Mount, name: &str, megabytes: u32| {
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=1M", &format!("count={megabytes}")]);
        command.arg(format!("of={}", mount.path().join(name).display()));
        process::output_within(&mut command, BOUND)
    };
    for (write_type, short_circuit) in [("MUST_CACHE", "true"), ("MUST_CACHE", "false"), ("THROUGH", "false")]
    {
        let mount = Spec::alluxio(&own.cluster, "/")
            .option("direct_io")
            .property("alluxio.user.file.writetype.default", write_type)
            .property("alluxio.user.short.circuit.enabled", short_circuit)
            .property("alluxio.user.block.size.bytes.default", "4MB")
            .start();
        let said = write(&mount, "large", 100);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            !said.status.success() && text.contains("No space left on device"),
            "{text}\n{}",
            mount.said()
        );
        wait_until("what was written is removed", RECOVERY, || !mount.path().join("large").exists());
        let mut again = write(&mount, "small", 2);
        let freed = holds_within(RECOVERY, || {
            if !again.status.success() {
                again = write(&mount, "small", 2);
            }
            again.status.success()
        });
        assert!(freed, "{write_type}: {}\n{}", String::from_utf8_lossy(&again.stderr), mount.said());
        assert_eq!(std::fs::metadata(mount.path().join("small")).unwrap().len(), 2 << 20);
        std::fs::remove_file(mount.path().join("small")).unwrap();
        assert!(!mount.logged("Failed to").is_empty());
        mount.unmount();
    }
}

#[test]
fn a_file_that_the_under_store_has_lost_is_gone_once_it_was_read() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("lost");
    let mount = impatient(&cluster, &dir).property("alluxio.user.file.writetype.default", "THROUGH").start();
    let (lost, other) = (mount.path().join("lost"), mount.path().join("other"));
    content::write_file(&lost, 5, SIZE).unwrap();
    content::write_file(&other, 6, SIZE).unwrap();
    std::fs::remove_file(dir.below().join("lost")).unwrap();

    fail_in_bounded_time(Command::new("cat").arg(&lost), &mount);
    assert!(!lost.exists(), "still there");
    content::check_file(&other, 6, SIZE).unwrap();
    mount.unmount();
}

#[test]
fn a_failure_is_logged_once_with_all_that_it_takes_to_find_its_cause() {
    let _one = one_at_a_time();
    let cluster = Cluster::get();
    let dir = cluster.directory("logged");
    let mount = impatient(&cluster, &dir).start();
    let file = mount.path().join("file");
    content::write_file(&file, 1, SIZE).unwrap();

    let down = cluster.kill_all_workers();
    let mut head = start_interruptible("cat", &file);
    let pid = head.id();
    assert!(!process::status_within(&mut head, BOUND).expect("it ends").success());
    fail_in_bounded_time(Command::new("cp").arg("/etc/passwd").arg(mount.path().join("new")), &mount);
    down.into_iter().for_each(Down::run);

    let reads = mount.logged("Failed to read /file: ");
    assert_eq!(reads.len(), 1, "{reads:#?}");
    let address = cluster.ports().iter().map(|port| format!("localhost:{port}")).collect::<Vec<_>>();
    for part in ["ERROR", "server not reachable", "block 0 of", &format!("(cat, pid {pid}, uid 0)")] {
        assert!(reads[0].contains(part), "no {part:?} in {}", reads[0]);
    }
    assert!(address.iter().any(|address| reads[0].contains(address)), "no server in {}", reads[0]);
    let writes = mount.logged("/new: ");
    assert_eq!(writes.len(), 1, "{writes:#?}");
    assert!(writes[0].contains("ERROR") && writes[0].contains("(cp, pid "), "{}", writes[0]);

    assert!(File::options().append(true).open(&file).is_err());
    let refused = mount.logged("append");
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert!(refused[0].contains("WARN") && refused[0].contains("Failed to open /file: not supported"));
    assert!(std::fs::metadata(mount.path().join("absent")).is_err());
    assert!(mount.logged("absent").is_empty(), "what is not there is no failure");
    mount.unmount();
}

/// Leaves a server that does not answer soon.
fn hasty(cluster: &Cluster, dir: &RemoteDir) -> Spec {
    impatient(cluster, dir)
        .property("alluxio.user.streaming.data.read.timeout", "1sec")
        .property("alluxio.user.streaming.data.write.timeout", "1sec")
        .property("alluxio.user.streaming.writer.flush.timeout", "1sec")
        .property("alluxio.user.streaming.writer.close.timeout", "1sec")
        .property("alluxio.network.connection.auth.timeout", "1sec")
}

/// Over the network and past the kernel's cache, so that every read wants its worker; retries for minutes.
fn patient(cluster: &Cluster, dir: &RemoteDir) -> Spec {
    Spec::alluxio(cluster, &dir.path)
        .option("direct_io")
        .property("alluxio.user.short.circuit.enabled", "false")
}

fn impatient(cluster: &Cluster, dir: &RemoteDir) -> Spec {
    patient(cluster, dir)
        .property("alluxio.user.rpc.retry.max.duration", RETRY)
        .property("alluxio.user.rpc.retry.max.sleep", "200ms")
        .property("alluxio.user.block.read.retry.max.duration", RETRY)
        .property("alluxio.user.file.write.init.max.duration", RETRY)
        .property("alluxio.user.block.read.retry.sleep.max", "200ms")
}

fn fail_in_bounded_time(command: &mut Command, mount: &Mount) {
    let output = process::output_within(command, BOUND);
    assert!(!output.status.success(), "{command:?} succeeded without its server\n{}", mount.said());
}

fn reads_again(path: &Path, seed: u64) {
    let mut last = Ok(());
    let back = holds_within(RECOVERY, || {
        last = content::check_file(path, seed, SIZE);
        last.is_ok()
    });
    assert!(back, "not readable after {RECOVERY:?}: {last:?}");
}

fn writes_again(path: &Path, seed: u64) {
    wait_until("a file can be written", RECOVERY, || {
        let written = content::write_file(path, seed, SIZE).is_ok();
        if !written {
            // What a failed attempt may have left; there may be nothing.
            let _ = std::fs::remove_file(path);
        }
        written
    });
    content::check_file(path, seed, SIZE).unwrap();
}

/// A program that an interrupt ends, also where the tests run with interrupts ignored.
fn start_interruptible(program: &str, path: &Path) -> Child {
    Command::new("env")
        .args(["--default-signal=INT", program])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until a thread of the mount waits for others to answer what `child` has asked for.
fn wait_until_a_server_is_asked(mount: &Mount, child: &Child) {
    let caller = format!("pid {},", child.id());
    wait_until("a worker of the mount waits for a server", BOUND, || {
        let threads = process::succeed(mount.command().arg("threads").arg(mount.path()), BOUND);
        threads.lines().any(|line| line.contains(&caller) && line.contains("; waits "))
    });
}

fn interrupt_while_it_waits(mut child: Child, mount: &Mount) {
    use std::os::unix::process::ExitStatusExt;
    // An interrupt that overtakes its request may be lost over io_uring.
    wait_until_a_server_is_asked(mount, &child);
    process::signal(child.id(), Signal::SIGINT);
    let status = process::status_within(&mut child, BOUND);
    if status.is_none() {
        // Not even this ends it before the daemon answers, so nobody waits for it.
        child.kill().unwrap();
    }
    let status = status.unwrap_or_else(|| panic!("not ended by the interrupt\n{}", mount.said()));
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{status}");
}

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
