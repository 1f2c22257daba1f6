//! Which collector gets spans of requests, by the properties and by the variable that programs with OpenTelemetry share.

use super::Plan;
use crate::config::Config;
use crate::config::keys;
use crate::spans;
use crate::spans::Exporter;
use crate::spans::Settings;

/// Where a collector takes traces, below its URL.
const TRACES: &str = "/v1/traces";

/// Starts to send spans, if somebody wants them. What is wrong with that does not stop a mount.
pub(super) fn start(plan: &Plan) -> Option<Exporter> {
    let variable = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok();
    let endpoint = endpoint(&plan.config, variable)?;
    let one_in = plan.config.int(&keys::FUSE_TRACING_ONE_IN);
    let one_in = u32::try_from(one_in).unwrap_or(u32::MAX);
    let settings = Settings { endpoint, one_in, instance: plan.point.display().to_string() };
    let shown = without_user(&settings.endpoint);
    match spans::start(&settings) {
        Ok(exporter) => {
            log::info!("Tracing: one in {one_in} requests, to {shown}");
            Some(exporter)
        }
        Err(err) => {
            log::warn!("No tracing to {shown}: {err}");
            None
        }
    }
}

/// `url` without the name and password that it may have: for logs.
fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host_end = rest.find('/').unwrap_or(rest.len());
            let host_start = rest[..host_end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[host_start..])
        }
        None => url.to_owned(),
    }
}

/// The URL for traces of the collector that is set; `variable` is what the environment says.
fn endpoint(config: &Config, variable: Option<String>) -> Option<String> {
    let set = config.optional_text(&keys::FUSE_TRACING_ENDPOINT).map(str::to_owned).or(variable);
    let base = set.filter(|set| !set.trim().is_empty())?;
    let base = base.trim().trim_end_matches('/');
    Some(if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_not_shown() {
        for (url, shown) in [
            ("http://host:4318/v1/traces", "http://host:4318/v1/traces"),
            ("https://user:p@ss@host/v1", "https://host/v1"),
            ("https://host/a@b", "https://host/a@b"),
            ("host:1", "host:1"),
        ] {
            assert_eq!(without_user(url), shown);
        }
    }
}
