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
    match spans::start(&settings) {
        Ok(exporter) => {
            log::info!("Tracing: one in {one_in} requests, to {}", settings.endpoint);
            Some(exporter)
        }
        Err(err) => {
            log::warn!("No tracing to {}: {err}", settings.endpoint);
            None
        }
    }
}

/// The URL for traces of the collector that is set; `variable` is what the environment says.
fn endpoint(config: &Config, variable: Option<String>) -> Option<String> {
    let set = config.optional_text(&keys::FUSE_TRACING_ENDPOINT).map(str::to_owned).or(variable);
    let base = set.filter(|set| !set.trim().is_empty())?;
    let base = base.trim().trim_end_matches('/');
    Some(if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") })
}
