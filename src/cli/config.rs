//! `alluxio-fuse config`.

use std::process::ExitCode;

use super::args::ConfigArgs;
use super::complain;
use super::out;
use crate::config::Config;
use crate::config::Environment;
use crate::config::command_line_properties;
use crate::mount;
use crate::mount::Failure;

pub(super) fn run(args: &ConfigArgs) -> ExitCode {
    let settings = match load(args) {
        Ok(config) => config.effective(),
        Err(failure) => {
            complain(failure);
            return ExitCode::FAILURE;
        }
    };
    if args.names.is_empty() {
        settings.iter().for_each(out);
        return ExitCode::SUCCESS;
    }
    let mut code = ExitCode::SUCCESS;
    for name in &args.names {
        let name = crate::config::keys::find(name).map_or(name.as_str(), |key| key.name);
        match settings.iter().find(|setting| setting.name == name) {
            Some(setting) => out(setting),
            None => {
                complain(format_args!("{name} is neither set nor a property that this program reads"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The settings of a mount with these options. A cluster that does not answer is told, and no reason to stop.
fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    let properties = command_line_properties(&args.options)?;
    let mut config = Config::load(Environment::of_process(), &properties)?;
    if !args.offline
        && let Err(failure) = mount::add_cluster_defaults(&mut config)
    {
        complain(format_args!("without the cluster's settings: {failure}"));
    }
    for (_, note) in config.take_notes().into_iter().filter(|(level, _)| *level <= log::Level::Warn) {
        complain(note);
    }
    Ok(config)
}
