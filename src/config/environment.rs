//! What the process was given from outside: variables, home, user. Taken once, so that tests can hand in their own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;

/// Variables that Alluxio's own image does not take for properties either.
const NO_PROPERTIES: [&str; 11] = [
    "ALLUXIO_CLASSPATH",
    "ALLUXIO_CONF_DIR",
    "ALLUXIO_FUSE_ATTACH_OPTS",
    "ALLUXIO_FUSE_JAVA_OPTS",
    "ALLUXIO_HOME",
    "ALLUXIO_JARS",
    "ALLUXIO_JAVA_OPTS",
    "ALLUXIO_LOGS_DIR",
    "ALLUXIO_PATH",
    "ALLUXIO_USER_JAVA_OPTS",
    "ALLUXIO_USER_LOGS_DIR",
];

/// The surroundings that settings come from.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
    home: Option<PathBuf>,
    user: String,
    uid: u32,
    /// Whether every variable `ALLUXIO_NAME` stands for the property `alluxio.name`.
    container: bool,
}

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        let uid = nix::unistd::geteuid();
        let account = nix::unistd::User::from_uid(uid).ok().flatten();
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Self {
            variables: std::env::vars_os().collect(),
            home: home.or_else(|| account.as_ref().map(|account| account.dir.clone())),
            user: account.map_or_else(|| uid.to_string(), |account| account.name),
            uid: uid.as_raw(),
            container: false,
        }
    }

    /// Those of this process, which is the entry point of a container: each variable `ALLUXIO_NAME` stands for the
    /// property `alluxio.name`.
    pub fn of_container() -> Self {
        Self { container: true, ..Self::of_process() }
    }

    /// Properties that variables stand for, by name of the variable; none outside a container. Those that are no UTF-8
    /// are left out, as no property is meant by them.
    pub(super) fn properties(&self) -> Vec<(String, String, String)> {
        if !self.container {
            return Vec::new();
        }
        let mut properties: Vec<_> = self
            .variables
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)))
            .filter(|(name, _)| name.starts_with("ALLUXIO_") && !NO_PROPERTIES.contains(name))
            .map(|(name, value)| {
                (name.to_owned(), name.to_ascii_lowercase().replace('_', "."), value.to_owned())
            })
            .collect();
        properties.sort();
        properties
    }

    /// Made up, for tests: variables, a home and the user `tester`, who is not root.
    #[cfg(test)]
    pub(super) fn made_up(variables: &[(&str, &str)], home: &std::path::Path) -> Self {
        Self {
            variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            home: Some(home.to_owned()),
            user: "tester".to_owned(),
            uid: 1234,
            container: false,
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Result<Option<&str>, ConfigError> {
        match self.variables.get(std::ffi::OsStr::new(name)) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some("") => Ok(None),
                Some(value) => Ok(Some(value)),
                None => Err(ConfigError::new(format!("environment variable {name} is not valid UTF-8"))),
            },
        }
    }

    /// The same surroundings, as a container's.
    #[cfg(test)]
    pub(super) fn in_container(self) -> Self {
        Self { container: true, ..self }
    }

    /// The user's home.
    pub(super) fn home(&self) -> Option<&str> {
        self.home.as_ref().and_then(|home| home.to_str())
    }

    /// The user's name, or number if it has none.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Directory for what must not outlive the running system, private to this user. Not made, not checked.
    pub fn runtime_dir(&self) -> PathBuf {
        if self.uid == 0 {
            return PathBuf::from("/run/alluxio-fuse");
        }
        match self.variable("XDG_RUNTIME_DIR") {
            Ok(Some(dir)) => PathBuf::from(dir).join("alluxio-fuse"),
            _ => PathBuf::from(format!("/tmp/alluxio-fuse-{}", self.uid)),
        }
    }

    /// Directory for what should stay, such as logs. Not made, not checked.
    pub(super) fn state_dir(&self) -> PathBuf {
        match (self.variable("XDG_STATE_HOME"), &self.home) {
            (Ok(Some(dir)), _) => PathBuf::from(dir).join("alluxio-fuse"),
            (_, Some(home)) => home.join(".local/state/alluxio-fuse"),
            (_, None) => PathBuf::from(format!("/tmp/alluxio-fuse-{}", self.uid)),
        }
    }
}
