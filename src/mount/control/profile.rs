//! Where processors spend their time in this process, as a flame graph. One at a time: the timer and its signal,
//! SIGPROF, are those of the process.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use pprof::ProfilerGuardBuilder;
use pprof::flamegraph::Options;

/// Samples in a second of processor time. No round number, so that nothing regular hides between them.
const FREQUENCY: i32 = 499;

/// Where no sample is taken: inside these libraries a signal may find locks held that unwinding takes, such as that of
/// the memory allocator. So what the system does on behalf of this process is not in the picture.
const BLOCKLIST: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// How often it is looked whether anybody still waits for it.
pub(super) const LOOK: Duration = Duration::from_millis(100);

static RUNNING: AtomicBool = AtomicBool::new(false);

/// Only one profile is made at a time, while this lives.
pub(super) struct Turn;

impl Turn {
    pub(super) fn take() -> Result<Self, String> {
        if RUNNING.swap(true, Ordering::Acquire) {
            return Err("somebody makes a profile of this mount already, try again later".to_owned());
        }
        Ok(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::Release);
    }
}

/// Takes samples for `time`, or until `is_over`; a picture, and how many samples it is made of.
pub(super) fn sample(time: Duration, is_over: &dyn Fn() -> bool) -> Result<(String, u64), String> {
    let _turn = Turn::take()?;
    let fail = |err: pprof::Error| format!("no profile: {err}");
    let guard =
        ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&BLOCKLIST).build().map_err(fail)?;
    let begun = Instant::now();
    while begun.elapsed() < time && !is_over() {
        sleep(LOOK.min(time.saturating_sub(begun.elapsed())));
    }
    let report = guard.report().build().map_err(fail)?;
    let samples = report.data.values().map(|count| u64::try_from(*count).unwrap_or(0)).sum();
    if samples == 0 {
        return Err("no processor time was used, try --off-cpu to see what threads wait for".to_owned());
    }
    let mut options = Options::default();
    options.title = "alluxio-fuse: processor time".to_owned();
    let mut svg = Vec::new();
    report.flamegraph_with_options(&mut svg, &mut options).map_err(fail)?;
    String::from_utf8(svg).map(|svg| (svg, samples)).map_err(|err| err.to_string())
}
