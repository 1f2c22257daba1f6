//! What the system knows of this process, in the place of a Java client's figures of its machine.

use std::fs::read_dir;
use std::fs::read_to_string;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::unistd::SysconfVar;
use nix::unistd::sysconf;

/// One figure of the process.
pub(super) struct Figure {
    /// As is usual for Prometheus.
    pub(super) name: &'static str,
    /// What it is, in a sentence.
    pub(super) help: &'static str,
    /// How much.
    pub(super) value: f64,
    /// Whether it only grows.
    pub(super) grows: bool,
}

/// All of them, as of now. What cannot be read is left out.
pub(super) fn figures() -> Vec<Figure> {
    let mut all = Vec::new();
    let gauge = |name, help, value| Figure { name, help, value, grows: false };
    let per_second = number(sysconf(SysconfVar::CLK_TCK));
    let page = number(sysconf(SysconfVar::PAGE_SIZE));
    if let (Some(stat), Some(per_second), Some(page)) = (stat(), per_second, page) {
        let cpu = (stat.user + stat.system) / per_second;
        let help = "Time of processors that this process has used.";
        all.push(Figure { grows: true, ..gauge("process_cpu_seconds_total", help, cpu) });
        let resident = stat.resident * page;
        all.push(gauge("process_resident_memory_bytes", "Memory of this process that is in use.", resident));
        all.push(gauge("process_virtual_memory_bytes", "Address space of this process.", stat.space));
        all.push(gauge("process_threads", "Threads of this process.", stat.threads));
        if let Some(boot) = boot_time() {
            let start = boot + stat.started / per_second;
            all.push(gauge("process_start_time_seconds", "When this process began, since 1970.", start));
        }
    }
    if let Ok(open) = read_dir("/proc/self/fd") {
        all.push(gauge("process_open_fds", "Open descriptors of this process.", open.count() as f64));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        all.push(gauge("process_max_fds", "How many descriptors this process may have open.", soft as f64));
    }
    all
}

struct Stat {
    user: f64,
    system: f64,
    threads: f64,
    started: f64,
    space: f64,
    resident: f64,
}

/// The figures of proc_pid_stat(5) that count here.
fn stat() -> Option<Stat> {
    let text = read_to_string("/proc/self/stat").ok()?;
    // The name of the program comes second and may contain anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        user: field(14)?,
        system: field(15)?,
        threads: field(20)?,
        started: field(22)?,
        space: field(23)?,
        resident: field(24)?,
    })
}

fn boot_time() -> Option<f64> {
    let text = read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn number(asked: nix::Result<Option<libc::c_long>>) -> Option<f64> {
    Some(asked.ok()?? as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let stat = stat().unwrap();
        assert!(stat.threads >= 1.0 && stat.resident > 0.0 && stat.space > stat.resident);
        assert!(boot_time().unwrap() > 1e9);
        assert_eq!(figures().len(), 7);
    }
}
