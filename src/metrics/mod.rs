//! What the program counts and measures. A leaf that every layer may use; knows nothing of who reads it.
//!
//! Recording is adding to atomic numbers: it takes no lock and allocates nothing. [`snapshot`] reads all of it as plain
//! data. The figures are those of the process, which serves one mount; what belongs to a part of it, such as the use of
//! its memory, that part tells when it is asked ([`register`]).
//!
//! Lock order: none is held while another is taken, or while anything else is done.

mod counter;
mod counters;
mod histogram;
mod operations;
mod process;
mod rates;
mod rpc;
mod snapshot;
mod sources;

pub use counter::Counter;
pub use counters::*;
pub use histogram::Distribution;
pub use histogram::Histogram;
pub use histogram::Timer;
pub use histogram::seconds;
pub use operations::Operation;
pub use operations::record;
pub use rates::Rates;
pub use rates::TICK;
pub use rpc::Calls;
pub use rpc::Method;
pub use rpc::all_servers;
pub use rpc::server;
pub use snapshot::JavaMetric;
pub use snapshot::JavaValue;
pub use snapshot::Registration;
pub use snapshot::Sample;
pub use snapshot::Snapshot;
pub use snapshot::Value;
pub use snapshot::register;
pub use snapshot::snapshot;
pub use snapshot::tick;
pub use sources::Source;
pub use sources::Sources;
pub use sources::read;
pub use sources::read_from;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_snapshot_has_each_value_once_and_those_of_a_name_together() {
        let found =
            |all: &Snapshot| all.value("alluxio_fuse_opens_total", &[("passthrough", "stacked file system")]);
        let before = found(&snapshot()).unwrap();
        OPENS_STACKED.count();
        let all = snapshot();
        assert!(found(&all).unwrap() > before);
        let keys: HashSet<_> =
            all.samples.iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect();
        assert_eq!(keys.len(), all.samples.len());
        let mut names: Vec<&str> = all.samples.iter().map(|sample| sample.name).collect();
        names.dedup();
        assert_eq!(names.len(), names.iter().collect::<HashSet<_>>().len());
        let java: HashSet<&str> = all.java.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(java.len(), all.java.len());
    }

    #[test]
    fn a_failure_is_counted_by_operation_and_error_and_under_alluxios_name() {
        let labels = [("op", "removexattr"), ("error", "ENOTBLK")];
        let count =
            |all: &Snapshot| all.value("alluxio_fuse_operation_failures_total", &labels).unwrap_or(0.0);
        assert_eq!(count(&snapshot()), 0.0);
        record(Operation::Removexattr, Duration::from_micros(3), libc::ENOTBLK);
        record(Operation::Removexattr, Duration::from_micros(3), 0);
        let all = snapshot();
        assert_eq!(count(&all), 1.0);
        let took = all.samples.iter().find(|sample| {
            sample.name == "alluxio_fuse_operation_seconds"
                && sample.labels == [("op", "removexattr".to_owned())]
        });
        assert!(
            matches!(&took.unwrap().value, Value::Times(times) if times.count == 2 && times.sum_ns == 6000)
        );
        assert!(all.java.iter().any(|metric| metric.name == "Fuse.TotalCalls"));
        assert!(
            !all.java.iter().any(|metric| metric.name.contains("Removexattr")),
            "Alluxio does not count it"
        );
    }

    #[test]
    fn who_is_registered_is_asked_until_the_registration_goes() {
        let registration = register(|all| all.gauge("a_test_gauge", "", 7.0));
        assert_eq!(snapshot().value("a_test_gauge", &[]), Some(7.0));
        drop(registration);
        assert_eq!(snapshot().value("a_test_gauge", &[]), None);
    }

    #[test]
    fn calls_are_counted_by_server_and_as_their_callers_see_them() {
        const NAMES: &[&str] = &["TestOne", "TestTwo"];
        server("a.test:1", NAMES).record(1, Duration::from_millis(2), true);
        server("a.test:1", NAMES).record(1, Duration::from_millis(2), false);
        let all = snapshot();
        let labels = [("method", "TestTwo"), ("server", "a.test:1")];
        assert_eq!(all.value("alluxio_fuse_rpc_seconds", &labels), Some(2.0));
        assert_eq!(all.value("alluxio_fuse_rpc_failures_total", &labels), Some(1.0));
        let unused = [("method", "TestOne"), ("server", "a.test:1")];
        assert_eq!(all.value("alluxio_fuse_rpc_seconds", &unused), None);
    }

    #[test]
    fn bytes_are_counted_by_source_and_what_nobody_accounts_for_was_here() {
        let values = || Source::ALL.map(read_from);
        let before = values();
        let mut sources = Sources::only(Source::Ufs, 10);
        sources.add(Sources::only(Source::Remote, 3));
        assert_eq!(sources.main(), Some(Source::Ufs));
        read(20, &sources);
        let after = values();
        let grown: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        // Other tests may read meanwhile.
        assert!(grown[Source::Ufs as usize] >= 10 && grown[Source::Remote as usize] >= 3);
        assert!(grown[Source::Memory as usize] >= 7);
        assert_eq!(Sources::default().main(), None);
    }
}
