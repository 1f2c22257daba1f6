//! The threads of this process: their names, what the kernel says they do, and where in the kernel they wait. In the
//! place of a Java process's dump.

use std::fmt::Write;
use std::fs::read_dir;
use std::fs::read_to_string;
use std::path::Path;

/// A line for each, under one that counts them.
pub(super) fn dump() -> String {
    let tasks = read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut lines: Vec<(u32, String)> = tasks
        .filter_map(|task| {
            let number = task.file_name().to_str()?.parse().ok()?;
            Some((number, describe(&task.path())?))
        })
        .collect();
    lines.sort_unstable();
    let mut text = format!("Process Thread Dump:\n{} active threads\n", lines.len());
    for (number, line) in lines {
        let _ =
            writeln!(text, "\"{}\" Id={number} {}", line.split('\n').next().unwrap_or_default(), rest(&line));
    }
    text
}

fn rest(line: &str) -> &str {
    line.split_once('\n').map_or("", |(_, rest)| rest)
}

/// The name, and on a second line the state; none if it has just ended.
fn describe(task: &Path) -> Option<String> {
    let name = read_to_string(task.join("comm")).ok()?;
    let stat = read_to_string(task.join("stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    let state = match state {
        'R' => "RUNNABLE",
        'S' => "WAITING",
        'D' => "BLOCKED in the kernel",
        'T' | 't' => "STOPPED",
        _ => "ENDING",
    };
    // Only the superuser is told.
    let at = read_to_string(task.join("wchan")).unwrap_or_default();
    let at = Some(at.trim()).filter(|at| !at.is_empty() && *at != "0");
    let at = at.map(|at| format!(" ({at})")).unwrap_or_default();
    Some(format!("{}\n{state}{at}", name.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_shows_by_its_name() {
        let (ready, started) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("shown".to_owned()).spawn(move || {
            ready.send(()).unwrap();
            held.recv().unwrap();
        });
        started.recv().unwrap();
        assert!(dump().contains("\"shown\" Id="), "{}", dump());
        release.send(()).unwrap();
        thread.unwrap().join().unwrap();
    }
}
