//! The configuration that the master hands to its clients, as it sends it: what a value means, and which one wins,
//! is for the layer above. Needs no authentication, so that the kind of authentication can be learnt from it.

use std::sync::Arc;
use std::time::Instant;

use tonic::Request;

use super::bridge::Bridge;
use super::connection::within;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::master::Master;
use super::options::AlluxioOptions;
use super::proto::grpc::ConfigProperty;
use super::proto::grpc::meta::GetConfigHashPOptions;
use super::proto::grpc::meta::GetConfigurationPOptions;
use super::proto::grpc::meta::GetConfigurationPResponse;
use super::proto::grpc::meta::meta_master_configuration_service_client::MetaMasterConfigurationServiceClient;
use crate::fs::Ctx;
use crate::fs::FsError;
use crate::fs::Result;

/// One property as the master has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterProperty {
    /// Its name.
    pub name: String,
    /// Where the master has it from: `DEFAULT`, `SITE_PROPERTY (file)`, `SYSTEM_PROPERTY` and the like.
    pub source: String,
    /// Its value, in which `${other.property}` is not resolved; none if it has no value.
    pub value: Option<String>,
}

/// What the master wants its clients to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterConfiguration {
    /// All its properties, its own defaults included.
    pub properties: Vec<ClusterProperty>,
    /// Properties for everything at and below a path, ordered by path.
    pub paths: Vec<(String, Vec<ClusterProperty>)>,
    /// Changes when `properties` do.
    pub hash: String,
    /// Changes when `paths` do.
    pub path_hash: String,
}

/// Asks the primary of `options.masters`. Of the other options only those of connection and retry count.
pub fn fetch_configuration(options: &AlluxioOptions) -> Result<ClusterConfiguration> {
    let (bridge, master) = open(&Arc::new(options.clone()))?;
    ask(&Ctx::daemon(), &bridge, &master)
}

/// Asks the primary that `master` knows.
pub(super) fn ask(ctx: &Ctx, bridge: &Bridge, master: &Master) -> Result<ClusterConfiguration> {
    bridge.run(ctx, None, get_configuration(master)).map(ClusterConfiguration::from)
}

/// The hashes of the configuration and of that of paths.
pub(super) fn ask_hashes(ctx: &Ctx, bridge: &Bridge, master: &Master) -> Result<(String, String)> {
    bridge.run(ctx, None, get_hashes(master))
}

/// For a few questions to the masters of `options`, without a file system.
pub(super) fn open(options: &Arc<AlluxioOptions>) -> Result<(Bridge, Master)> {
    let bridge = Bridge::new(0)?;
    let master = {
        let _inside = bridge.calls().enter();
        Master::new(Arc::clone(options))?
    };
    Ok((bridge, master))
}

async fn get_configuration(master: &Master) -> Result<GetConfigurationPResponse> {
    master
        .repeat(|| async {
            let server = master.primary().server().await?;
            let mut client = MetaMasterConfigurationServiceClient::new(server.channel())
                .max_decoding_message_size(master.message_max());
            let message = GetConfigurationPOptions { raw_value: Some(true), ..Default::default() };
            server.sends(Rpc::GetConfiguration, &message);
            let call = client.get_configuration(Request::new(message));
            let begun = Instant::now();
            let answer = within(master.rpc_timeout(), call).await;
            server.took(Rpc::GetConfiguration, begun, answer.is_err());
            match answer {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => {
                    let failure = failure(Rpc::GetConfiguration, &"of the cluster", server.name(), &status);
                    if failure.class == Class::Connection {
                        master.primary().lost(&server);
                    }
                    Err(failure)
                }
            }
        })
        .await
        .map_err(FsError::from)
}

async fn get_hashes(master: &Master) -> Result<(String, String)> {
    master
        .repeat(|| async {
            let server = master.primary().server().await?;
            let mut client = MetaMasterConfigurationServiceClient::new(server.channel());
            server.sends(Rpc::GetConfigHash, &"");
            let call = client.get_config_hash(Request::new(GetConfigHashPOptions {}));
            let begun = Instant::now();
            let answer = within(master.rpc_timeout(), call).await;
            server.took(Rpc::GetConfigHash, begun, answer.is_err());
            match answer {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    Ok((answer.cluster_config_hash().to_owned(), answer.path_config_hash().to_owned()))
                }
                Err(status) => {
                    let failure: Failure =
                        failure(Rpc::GetConfigHash, &"of the cluster", server.name(), &status);
                    if failure.class == Class::Connection {
                        master.primary().lost(&server);
                    }
                    Err(failure)
                }
            }
        })
        .await
        .map_err(FsError::from)
}

impl From<GetConfigurationPResponse> for ClusterConfiguration {
    fn from(answer: GetConfigurationPResponse) -> Self {
        let mut paths: Vec<_> = answer
            .path_configs
            .into_iter()
            .map(|(path, properties)| {
                (path, properties.properties.into_iter().map(ClusterProperty::from).collect())
            })
            .collect();
        paths.sort_by(|(one, _): &(String, Vec<ClusterProperty>), (other, _)| one.cmp(other));
        Self {
            properties: answer.cluster_configs.into_iter().map(ClusterProperty::from).collect(),
            paths,
            hash: answer.cluster_config_hash.unwrap_or_default(),
            path_hash: answer.path_config_hash.unwrap_or_default(),
        }
    }
}

impl From<ConfigProperty> for ClusterProperty {
    fn from(property: ConfigProperty) -> Self {
        Self {
            name: property.name.unwrap_or_default(),
            source: property.source.unwrap_or_default(),
            value: property.value,
        }
    }
}
