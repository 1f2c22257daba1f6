//! Which master is the primary. Standby masters listen, connect and even authenticate like it; only their answer to
//! the question for a service's version tells them apart.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::join;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::Status;

use super::connection::Server;
use super::connection::Target;
use super::connection::Use;
use super::connection::within;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::flight::Flight;
use super::options::AlluxioOptions;
use super::proto::grpc::version::GetServiceVersionPRequest;
use super::proto::grpc::version::ServiceType;
use super::proto::grpc::version::service_version_client_service_client::ServiceVersionClientServiceClient;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Result;

/// The version of the services of a master that this client speaks: that of Alluxio 2.
const VERSION: i64 = 2;

/// How long after a restart, or after another master has taken over, workers may still have to tell it of themselves and of
/// their blocks.
const NEW_FOR: Duration = Duration::from_secs(60);

/// The masters, and which of them serves.
pub(super) struct Primary {
    options: Arc<AlluxioOptions>,
    servers: Vec<Arc<Server>>,
    /// None while it has to be looked for.
    current: ArcSwapOption<Server>,
    /// The last one that was found.
    last: ArcSwapOption<Server>,
    /// When one was found in the place of one that was lost.
    found_again: Mutex<Option<Instant>>,
    finding: Flight,
}

impl Primary {
    /// Not looked for yet. Must be called inside the runtime.
    pub(super) fn new(options: Arc<AlluxioOptions>) -> Result<Self> {
        if options.masters.is_empty() {
            let detail =
                "no master is configured, set alluxio.master.hostname or alluxio.master.rpc.addresses";
            return Err(FsError::because(Fault::InvalidArgument, detail));
        }
        let servers = options
            .masters
            .iter()
            .map(|address| Server::new(&Target::Tcp(address.clone()), Use::Calls, &options).map(Arc::new))
            .collect::<Result<_>>()?;
        Ok(Self {
            options,
            servers,
            current: ArcSwapOption::default(),
            last: ArcSwapOption::default(),
            found_again: Mutex::default(),
            finding: Flight::default(),
        })
    }

    /// The primary, found among the masters if it is not known; one round.
    pub(super) async fn server(&self) -> Result<Arc<Server>, Failure> {
        self.finding.run(|| self.current.load_full(), self.find()).await
    }

    /// `server` is not there, or not the primary any more: the next call looks for it again.
    pub(super) fn lost(&self, server: &Arc<Server>) {
        let before = self.current.compare_and_swap(server, None);
        if before.as_ref().is_some_and(|current| Arc::ptr_eq(current, server)) {
            log::debug!("looking for the primary master again, {} failed", server.name());
        }
    }

    /// When the primary may have restarted, or taken over, if that is so short a time ago that it need not know all workers.
    pub(super) fn new_since(&self) -> Option<Instant> {
        // One that nobody has asked for anything while it was away is only connected again.
        let again = self.current.load().as_ref().and_then(|server| server.authenticated_again());
        (*self.found_again.lock()).max(again).filter(|when| when.elapsed() < NEW_FOR)
    }

    async fn find(&self) -> Result<Arc<Server>, Failure> {
        let server = self.ask_all().await?;
        self.check_versions(&server).await?;
        let before = self.last.swap(Some(Arc::clone(&server)));
        if before.is_some() {
            *self.found_again.lock() = Some(Instant::now());
        }
        if !before.is_some_and(|before| Arc::ptr_eq(&before, &server)) {
            log::info!("the primary master is {}", server.name());
        }
        self.current.store(Some(Arc::clone(&server)));
        Ok(server)
    }

    /// Asks every master at once, so that one that does not answer holds nobody up.
    async fn ask_all(&self) -> Result<Arc<Server>, Failure> {
        let mut asked = JoinSet::new();
        for server in &self.servers {
            let server = Arc::clone(server);
            let limit = self.options.polling_timeout;
            asked.spawn(async move {
                let ask = version(&server, ServiceType::MetaMasterClientService, false);
                let answer = within(limit, ask).await;
                (server, answer)
            });
        }
        let mut reasons = Vec::with_capacity(self.servers.len());
        while let Some(joined) = asked.join_next().await {
            let Ok((server, answer)) = joined else {
                continue;
            };
            match answer {
                Ok(_) => return Ok(server),
                Err(status) => reasons.push(why_not(&server, &status)?),
            }
        }
        let detail = match &reasons[..] {
            [reason] => format!("no primary master: {reason}"),
            _ => format!("no primary among {} masters: {}", self.servers.len(), reasons.join("; ")),
        };
        Err(Failure::connection(Fault::Unavailable, detail))
    }

    async fn check_versions(&self, server: &Server) -> Result<(), Failure> {
        let limit = self.options.polling_timeout;
        let (files, blocks) = join!(
            within(limit, version(server, ServiceType::FileSystemMasterClientService, true)),
            within(limit, version(server, ServiceType::BlockMasterClientService, true)),
        );
        for (service, answer) in [("file system", files), ("block", blocks)] {
            let theirs = answer.map_err(|status| {
                // A master that has just become primary does not have all its services yet.
                let failure = failure(Rpc::GetServiceVersion, &service, server.name(), &status);
                Failure { class: Class::Connection, ..failure }
            })?;
            agree(service, server.name(), theirs)?;
        }
        Ok(())
    }
}

/// Refuses a master of another version.
fn agree(service: &str, server: &str, theirs: i64) -> Result<()> {
    if theirs == VERSION {
        return Ok(());
    }
    let detail = format!(
        "master {server} speaks version {theirs} of the {service} service and this client version {VERSION}: \
         it needs a cluster of Alluxio 2"
    );
    Err(FsError::because(Fault::NotSupported, detail))
}

async fn version(server: &Server, service: ServiceType, standby: bool) -> Result<i64, Status> {
    let mut client = ServiceVersionClientServiceClient::new(server.channel());
    let request = GetServiceVersionPRequest {
        service_type: Some(service.into()),
        // Absent, as the Java client has it, a standby master refuses to answer.
        allowed_on_standby_masters: standby.then_some(true),
    };
    let begun = Instant::now();
    let answer = client.get_service_version(request).await;
    server.took(Rpc::GetServiceVersion, begun, answer.is_err());
    Ok(answer?.into_inner().version())
}

/// What `status` says of a master that is not the primary; an answer that no master gives is a failure.
fn why_not(server: &Server, status: &Status) -> Result<String, Failure> {
    let failure = failure(Rpc::GetServiceVersion, &"of the master", server.name(), status);
    let expected = failure.class == Class::Connection
        || matches!(status.code(), Code::NotFound | Code::DeadlineExceeded | Code::Unavailable);
    if expected {
        let cause = failure.error.detail().unwrap_or_default();
        let cause = cause.split_once(": ").map_or(cause, |(_, cause)| cause);
        Ok(format!("{}: {cause}", server.name()))
    } else {
        Err(failure.error.context("this is not an Alluxio master").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_and_both_are_named() {
        assert!(agree("block", "m:19998", 2).is_ok());
        let err = agree("block", "m:19998", 3).unwrap_err();
        assert_eq!(err.fault(), Fault::NotSupported);
        for part in ["version 3", "version 2", "m:19998", "block"] {
            assert!(err.to_string().contains(part), "{err}");
        }
    }

    #[test]
    fn a_mount_needs_a_master() {
        let options = AlluxioOptions { masters: Vec::new(), ..AlluxioOptions::default() };
        let err = Primary::new(Arc::new(options)).err().unwrap();
        assert!(err.to_string().contains("alluxio.master.hostname"), "{err}");
    }
}
