//! The figures as Alluxio's web server gives them: Dropwizard's JSON, times in milliseconds.

use serde_json::Map;
use serde_json::Value as Json;
use serde_json::json;

use super::Identity;
use crate::metrics::Distribution;
use crate::metrics::JavaValue;
use crate::metrics::Rates;
use crate::metrics::Snapshot;

/// The version of Dropwizard's format.
const VERSION: &str = "4.0.0";

const MILLISECOND: f64 = 1e6;

/// The whole page.
pub(super) fn page(all: &Snapshot, identity: &Identity) -> Vec<u8> {
    let (mut gauges, mut counters) = (Map::new(), Map::new());
    let (mut meters, mut timers) = (Map::new(), Map::new());
    for metric in &all.java {
        let name = identity.full_name(metric);
        match &metric.value {
            JavaValue::Gauge(value) => gauges.insert(name, json!({ "value": number(*value) })),
            JavaValue::Counter(count) => counters.insert(name, json!({ "count": count })),
            JavaValue::Meter(count, rates) => meters.insert(name, meter(*count, *rates)),
            JavaValue::Timer(times, rates) => timers.insert(name, timer(times, *rates)),
        };
    }
    for (name, ours, factor) in PROCESS {
        if let Some(value) = all.value(ours, &[]) {
            gauges.insert((*name).to_owned(), json!({ "value": number(value * factor) }));
        }
    }
    let page = json!({
        "version": VERSION,
        "gauges": gauges,
        "counters": counters,
        "histograms": {},
        "meters": meters,
        "timers": timers,
    });
    serde_json::to_vec_pretty(&page).expect("names are text")
}

/// What is shown of this process, as a Java client shows its machine: the name, where it comes from, and a factor.
const PROCESS: &[(&str, &str, f64)] = &[
    ("count", "process_threads", 1.0),
    ("os.openFileCount", "process_open_fds", 1.0),
    ("os.maxFileCount", "process_max_fds", 1.0),
    ("process.cpu.seconds", "process_cpu_seconds_total", 1.0),
    ("process.memory.resident", "process_resident_memory_bytes", 1.0),
    ("process.memory.virtual", "process_virtual_memory_bytes", 1.0),
];

/// A whole number where it is one.
fn number(value: f64) -> Json {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { json!(value as i64) } else { json!(value) }
}

fn meter(count: u64, rates: Rates) -> Json {
    let Rates { m1, m5, m15, mean } = rates;
    json!({
        "count": count,
        "m15_rate": m15,
        "m1_rate": m1,
        "m5_rate": m5,
        "mean_rate": mean,
        "units": "events/second",
    })
}

fn timer(times: &Distribution, rates: Rates) -> Json {
    let at = |quantile| times.quantile_ns(quantile) / MILLISECOND;
    let Rates { m1, m5, m15, mean } = rates;
    json!({
        "count": times.count,
        "max": times.max_ns as f64 / MILLISECOND,
        "mean": times.mean_ns() / MILLISECOND,
        "min": times.min_ns() as f64 / MILLISECOND,
        "p50": at(0.5),
        "p75": at(0.75),
        "p95": at(0.95),
        "p98": at(0.98),
        "p99": at(0.99),
        "p999": at(0.999),
        "stddev": times.deviation_ns() / MILLISECOND,
        "m15_rate": m15,
        "m1_rate": m1,
        "m5_rate": m5,
        "mean_rate": mean,
        "duration_units": "milliseconds",
        "rate_units": "calls/second",
    })
}
