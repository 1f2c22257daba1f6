//! What this client has done, told to the master, which adds it up over all its clients.

use std::time::Instant;

use super::connection::within;
use super::error::Class;
use super::error::Rpc;
use super::error::failure;
use super::master::Master;
use super::proto::grpc::Metric;
use super::proto::grpc::MetricType;
use super::proto::grpc::metric::ClientMetrics;
use super::proto::grpc::metric::MetricsHeartbeatPOptions;
use super::proto::grpc::metric::MetricsHeartbeatPRequest;
use super::proto::grpc::metric::metrics_master_client_service_client::MetricsMasterClientServiceClient;
use crate::fs::Result;

/// What has been added to counters since the last report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Tells this client from all others.
    pub client: String,
    /// The name of this machine.
    pub host: String,
    /// Each counter by its name, and what has been added to it.
    pub added: Vec<(&'static str, u64)>,
}

impl Master {
    /// Sends `report`, once: a caller who sends it again because the answer was lost may have it counted twice.
    pub(super) async fn heartbeat(&self, report: &Report) -> Result<()> {
        let server = self.primary().server().await?;
        let id = server.ready().await?;
        let message = MetricsHeartbeatPRequest {
            options: Some(MetricsHeartbeatPOptions {
                client_metrics: vec![ClientMetrics {
                    source: Some(report.client.clone()),
                    metrics: report.added.iter().map(|added| metric(&report.host, *added)).collect(),
                }],
            }),
        };
        server.sends(Rpc::MetricsHeartbeat, &message);
        let mut client = MetricsMasterClientServiceClient::new(server.channel());
        let begun = Instant::now();
        let answer = within(self.rpc_timeout(), client.metrics_heartbeat(id.sign(message))).await;
        server.took(Rpc::MetricsHeartbeat, begun, answer.is_err());
        let Err(status) = answer else { return Ok(()) };
        let failure = failure(Rpc::MetricsHeartbeat, &report.client, server.name(), &status);
        match failure.class {
            Class::Connection => self.primary().lost(&server),
            Class::Unauthenticated => server.refresh(&id),
            Class::Raced | Class::Unregistered | Class::Final => {}
        }
        Err(failure.error)
    }
}

fn metric(host: &str, (name, added): (&str, u64)) -> Metric {
    Metric {
        instance: Some("Client".to_owned()),
        source: Some(host.to_owned()),
        name: Some(name.to_owned()),
        value: Some(added as f64),
        metric_type: MetricType::Counter.into(),
    }
}
