//! What the process was given from outside: variables, home, user. Taken once, so that tests can hand in their own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

use super::ConfigError;
use super::Origin;
use super::env_script;

/// Variables that Alluxio's own image does not take for properties either.
const NO_PROPERTIES: [&str; 16] = [
    "ALLUXIO_CLASSPATH",
    "ALLUXIO_CONF_DIR",
    "ALLUXIO_FUSE_ATTACH_OPTS",
    "ALLUXIO_FUSE_JAVA_OPTS",
    "ALLUXIO_FUSE_RUNTIME_DIR",
    "ALLUXIO_GID",
    "ALLUXIO_GROUP",
    "ALLUXIO_HOME",
    "ALLUXIO_JARS",
    "ALLUXIO_JAVA_OPTS",
    "ALLUXIO_LOGS_DIR",
    "ALLUXIO_PATH",
    "ALLUXIO_UID",
    "ALLUXIO_USERNAME",
    "ALLUXIO_USER_JAVA_OPTS",
    "ALLUXIO_USER_LOGS_DIR",
];

/// Whether a variable is one of those by which Kubernetes and Docker tell each container of the services beside it, such as
/// one that is called alluxio-master: `ALLUXIO_MASTER_PORT=tcp://10.0.0.1:19998`.
fn is_service_link(name: &str, value: &str) -> bool {
    let has_protocol = ["TCP", "UDP", "SCTP"].into_iter().any(|protocol| {
        let begins = name.split(&format!("_{protocol}")[..]).next().unwrap_or_default();
        let port = begins.rsplit_once("_PORT_").map(|(_, port)| port).unwrap_or_default();
        begins.len() < name.len() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    has_protocol
        || ["tcp://", "udp://", "sctp://"].into_iter().any(|begin| value.starts_with(begin))
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
}

/// Where Alluxio is installed if `program` is in the place of its own `integration/fuse/bin/alluxio-fuse`.
fn alluxio_home(program: &Path) -> Option<PathBuf> {
    let bin = program.parent()?;
    let home = bin.parent()?.parent()?.parent()?;
    bin.ends_with("integration/fuse/bin").then(|| home.to_owned())
}

/// The surroundings that settings come from.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
    /// Variables of Alluxio's that were not given to the process, each with where it comes from. They win.
    added: HashMap<OsString, (OsString, String)>,
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
        let variables: HashMap<_, _> = std::env::vars_os().collect();
        let mut added = HashMap::new();
        if !variables.contains_key(OsStr::new("ALLUXIO_HOME"))
            && let Some(alluxio) = std::env::current_exe().ok().as_deref().and_then(alluxio_home)
        {
            added.insert("ALLUXIO_HOME".into(), (alluxio.into(), "as the program is in it".to_owned()));
        }
        Self {
            variables,
            added,
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
            .filter(|(name, value)| !is_service_link(name, value))
            .map(|(name, value)| {
                (name.to_owned(), name.to_ascii_lowercase().replace('_', "."), value.to_owned())
            })
            .collect();
        properties.sort();
        properties
    }

    /// The user that Alluxio's own image would become in a container, if it is another one than this.
    pub(super) fn wanted_user(&self) -> Option<&str> {
        let wanted = self.variable("ALLUXIO_USERNAME").ok().flatten()?;
        (self.container && wanted != self.user).then_some(wanted)
    }

    /// Made up, for tests: variables, a home and the user `tester`, who is not root.
    #[cfg(test)]
    pub(super) fn made_up(variables: &[(&str, &str)], home: &Path) -> Self {
        Self {
            variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            added: HashMap::new(),
            home: Some(home.to_owned()),
            user: "tester".to_owned(),
            uid: 1234,
            container: false,
        }
    }

    /// Runs `alluxio-env.sh` if there is one; tells which, and what it printed. What it sets counts from then on.
    pub(super) fn run_script(&mut self) -> Result<Option<(PathBuf, String)>, ConfigError> {
        let conf = match self.variable("ALLUXIO_CONF_DIR")? {
            Some(dir) => PathBuf::from(dir),
            None => match self.variable("ALLUXIO_HOME")? {
                Some(home) => Path::new(home).join("conf"),
                None => return Ok(None),
            },
        };
        let script = conf.join(env_script::NAME);
        if !script.exists() {
            return Ok(None);
        }
        let mut variables = self.variables.clone();
        variables.extend(self.added.iter().map(|(name, (value, _))| (name.clone(), value.clone())));
        let outcome = env_script::run(&script, &variables)
            .map_err(|problem| ConfigError::new(format!("{}: {problem}", script.display())))?;
        let origin = format!("of {}", script.display());
        let changed = outcome.changed.into_iter().map(|(name, value)| (name, (value, origin.clone())));
        self.added.extend(changed);
        Ok(Some((script, outcome.printed)))
    }

    /// Where the value of the variable `name` comes from.
    pub(super) fn origin(&self, name: &'static str) -> Origin {
        match self.added.get(OsStr::new(name)) {
            Some((_, from)) => Origin::Variable(format!("{name} {from}").into()),
            None => Origin::Variable(name.into()),
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Result<Option<&str>, ConfigError> {
        let name_os = OsStr::new(name);
        match self.added.get(name_os).map(|(value, _)| value).or_else(|| self.variables.get(name_os)) {
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

    /// Directories for what must not outlive the running system, private to this user, the best one first: with another
    /// session or none, or where `/run` cannot be written, another one is there. Not made, not checked, never none.
    pub fn runtime_dirs(&self) -> Vec<PathBuf> {
        if let Ok(Some(dir)) = self.variable("ALLUXIO_FUSE_RUNTIME_DIR") {
            return vec![PathBuf::from(dir)];
        }
        let of_session = self.variable("XDG_RUNTIME_DIR").ok().flatten();
        let of_session = of_session.map(|dir| PathBuf::from(dir).join("alluxio-fuse"));
        let shared = PathBuf::from(format!("/tmp/alluxio-fuse-{}", self.uid));
        let mut dirs: Vec<PathBuf> = if self.uid == 0 {
            [Some("/run/alluxio-fuse".into()), of_session, Some(shared)].into_iter().flatten().collect()
        } else {
            let of_user = PathBuf::from(format!("/run/user/{}/alluxio-fuse", self.uid));
            [of_session, Some(of_user), Some(shared)].into_iter().flatten().collect()
        };
        dirs.dedup();
        dirs
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_about_services_are_no_properties() {
        let links = [
            ("ALLUXIO_MASTER_PORT", "tcp://10.0.0.1:19998"),
            ("ALLUXIO_MASTER_PORT_19998_TCP", "tcp://10.0.0.1:19998"),
            ("ALLUXIO_MASTER_PORT_19998_TCP_ADDR", "10.0.0.1"),
            ("ALLUXIO_MASTER_PORT_19998_UDP_PROTO", "udp"),
            ("ALLUXIO_MASTER_SERVICE_HOST", "10.0.0.1"),
            ("ALLUXIO_MASTER_SERVICE_PORT", "19998"),
            ("ALLUXIO_MASTER_SERVICE_PORT_RPC", "19998"),
        ];
        for (name, value) in links {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in
            [("ALLUXIO_MASTER_RPC_PORT", "19998"), ("ALLUXIO_X_TCP", "1"), ("ALLUXIO_PORT_TCP", "1")]
        {
            assert!(!is_service_link(name, value), "{name}");
        }
    }

    #[test]
    fn there_is_a_second_place_for_the_list_of_mounts() {
        let dirs = |variables: &[(&str, &str)], uid| {
            let environment = Environment { uid, ..Environment::made_up(variables, Path::new("/home/x")) };
            environment.runtime_dirs().iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>()
        };
        let session = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(dirs(&[], 7), ["/run/user/7/alluxio-fuse", "/tmp/alluxio-fuse-7"]);
        assert_eq!(dirs(&[session], 7), dirs(&[], 7));
        let root = ["/run/alluxio-fuse", "/run/user/7/alluxio-fuse", "/tmp/alluxio-fuse-0"];
        assert_eq!(dirs(&[session], 0), root);
        assert_eq!(dirs(&[session, ("ALLUXIO_FUSE_RUNTIME_DIR", "/own")], 0), ["/own"]);
    }

    #[test]
    fn a_program_in_the_place_of_the_java_one_knows_where_alluxio_is() {
        let home = |program: &str| alluxio_home(Path::new(program));
        assert_eq!(home("/opt/a/integration/fuse/bin/alluxio-fuse"), Some("/opt/a".into()));
        assert_eq!(home("/usr/bin/alluxio-fuse"), None);
        assert_eq!(home("/bin/alluxio-fuse"), None);
    }
}
