//! The figures for Prometheus, in its text format 0.0.4: under the names that Alluxio's clients give them there, the
//! name of the client in each, and under our own with labels and with histograms that can be added up.

use std::fmt::Write;

use super::Identity;
use crate::metrics::Distribution;
use crate::metrics::JavaValue;
use crate::metrics::Sample;
use crate::metrics::Snapshot;
use crate::metrics::Value;
use crate::metrics::seconds;

const QUANTILES: [f64; 6] = [0.5, 0.75, 0.95, 0.98, 0.99, 0.999];

/// The whole page.
pub(super) fn page(all: &Snapshot, identity: &Identity) -> String {
    let mut page = String::with_capacity(256 * 1024);
    for metric in &all.java {
        let full = identity.full_name(metric);
        let (kind, suffix) = match &metric.value {
            // Alluxio's counters may shrink in the eyes of its library, and so are gauges here.
            JavaValue::Gauge(_) | JavaValue::Counter(_) => ("gauge", ""),
            JavaValue::Meter(..) => ("counter", "_total"),
            JavaValue::Timer(..) => ("summary", ""),
        };
        let name = format!("{}{suffix}", sanitized(&full));
        head(&mut page, &name, &format!("Alluxio's {full}."), kind);
        match &metric.value {
            JavaValue::Gauge(value) => line(&mut page, &name, &[], *value),
            JavaValue::Counter(count) | JavaValue::Meter(count, _) => {
                line(&mut page, &name, &[], *count as f64);
            }
            JavaValue::Timer(times, _) => summary(&mut page, &name, times),
        }
    }
    let mut last = "";
    for Sample { name, help, labels, value } in &all.samples {
        if *name != last {
            let kind = match value {
                Value::Counter(_) => "counter",
                Value::Gauge(_) => "gauge",
                Value::Times(_) => "histogram",
            };
            head(&mut page, name, help, kind);
            last = name;
        }
        match value {
            Value::Counter(value) | Value::Gauge(value) => line(&mut page, name, labels, *value),
            Value::Times(times) => histogram(&mut page, name, labels, times),
        }
    }
    page
}

fn head(page: &mut String, name: &str, help: &str, kind: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn summary(page: &mut String, name: &str, times: &Distribution) {
    for quantile in QUANTILES {
        let labels = [("quantile", quantile.to_string())];
        line(page, name, &labels, seconds(times.quantile_ns(quantile)));
    }
    line(page, &format!("{name}_sum"), &[], seconds(times.sum_ns as f64));
    line(page, &format!("{name}_count"), &[], times.count as f64);
}

fn histogram(page: &mut String, name: &str, labels: &[(&'static str, String)], times: &Distribution) {
    let bucket = format!("{name}_bucket");
    let mut labels = labels.to_vec();
    labels.push(("le", String::new()));
    let last = labels.len() - 1;
    for (border, count) in times.cumulative() {
        labels[last].1 = border.to_string();
        line(page, &bucket, &labels, count as f64);
    }
    labels[last].1 = "+Inf".to_owned();
    line(page, &bucket, &labels, times.count as f64);
    labels.pop();
    line(page, &format!("{name}_sum"), &labels, seconds(times.sum_ns as f64));
    line(page, &format!("{name}_count"), &labels, times.count as f64);
}

fn line(page: &mut String, name: &str, labels: &[(&'static str, String)], value: f64) {
    page.push_str(name);
    let mut separator = '{';
    for (label, text) in labels {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(page, "{separator}{label}=\"{text}\"");
        separator = ',';
    }
    if !labels.is_empty() {
        page.push('}');
    }
    let _ = writeln!(page, " {value}");
}

/// As Alluxio's exporter makes names of those that Prometheus does not take.
fn sanitized(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '_';
    name.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_and_names_made_fit() {
        let mut page = String::new();
        line(&mut page, "a", &[("b", "c\"d\\e\nf".to_owned()), ("g", "h".to_owned())], 2.5);
        assert_eq!(page, "a{b=\"c\\\"d\\\\e\\nf\",g=\"h\"} 2.5\n");
        assert_eq!(sanitized("Client.GetStatus.User:a b.host-1"), "Client_GetStatus_User:a_b_host_1");
    }
}
