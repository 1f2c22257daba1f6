//! What threads of this process wait for, as a flame graph: samples of what they do, by what they serve, and where in the
//! kernel they sleep. Threads that wait for work are left out.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use inferno::flamegraph;
use inferno::flamegraph::Options;

use super::inspect::Inspected;
use super::inspect::tasks;
use super::profile::Turn;
use crate::session::Doing;

/// Between two samples.
const STEP: Duration = Duration::from_millis(10);

/// Takes samples for `time`, or until `is_over`; a picture, and how many samples it is made of.
pub(super) fn sample(
    inspected: &Inspected,
    time: Duration,
    is_over: &dyn Fn() -> bool,
) -> Result<(String, u64), String> {
    let _turn = Turn::take()?;
    let begun = Instant::now();
    let mut stacks: HashMap<String, u64> = HashMap::new();
    while begun.elapsed() < time && !is_over() {
        look(inspected, &mut stacks);
        sleep(STEP.min(time.saturating_sub(begun.elapsed())));
    }
    let samples = stacks.values().sum();
    if samples == 0 {
        return Err("no thread waited for anything but work".to_owned());
    }
    let mut lines: Vec<String> =
        stacks.into_iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    lines.sort();
    let mut options = Options::default();
    options.title = "alluxio-fuse: waiting".to_owned();
    options.count_name = "samples, each of 10 ms".to_owned();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(|err| format!("no profile: {err}"))?;
    String::from_utf8(svg).map(|svg| (svg, samples)).map_err(|err| err.to_string())
}

/// One sample of each thread that does not run.
fn look(inspected: &Inspected, stacks: &mut HashMap<String, u64>) {
    let sleeping: HashMap<i32, char> =
        tasks().into_iter().filter(|task| task.state != 'R').map(|task| (task.tid, task.state)).collect();
    for worker in inspected.activity.workers() {
        let (Some(doing), Some(state)) = (worker.doing, sleeping.get(&worker.tid)) else { continue };
        *stacks.entry(stack(&doing, *state, &place(worker.tid))).or_default() += 1;
    }
}

/// What a thread does, from the outside in: the operation, what it waits for, where it sleeps in the kernel.
fn stack(doing: &Doing, state: char, place: &str) -> String {
    let mut frames = vec![doing.request.operation.name().to_owned()];
    if let Some(wait) = &doing.wait {
        frames.push(wait.what.to_owned());
        frames.push(if wait.server.is_empty() { "this process".to_owned() } else { wait.server.to_string() });
    }
    frames.push(if state == 'D' { format!("{place} (disk)") } else { place.to_owned() });
    // What has a meaning of its own in the list of stacks.
    frames.iter().map(|frame| frame.replace([';', '\n'], "_")).collect::<Vec<_>>().join(";")
}

/// Where in the kernel thread `tid` sleeps.
fn place(tid: i32) -> String {
    match std::fs::read_to_string(format!("/proc/self/task/{tid}/wchan")) {
        Ok(name) if !name.is_empty() && name != "0" => name,
        _ => "asleep".to_owned(),
    }
}
