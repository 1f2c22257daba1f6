//! All settings: where they come from, who wins, and what they say. The only reader of property files and
//! environment variables. Every value of a known key is checked when it is loaded, so reading one cannot fail.
//!
//! Sources, weakest first: built-in defaults, the cluster's defaults, `alluxio-site.properties`, `-D` and the
//! variables that stand for one (also those that `alluxio-env.sh` sets), the command line. Values may refer to others by `${key}`.

mod effective;
mod env_script;
mod environment;
mod error;
mod java_opts;
pub mod keys;
mod mount_options;
mod nearest;
mod properties;
mod source;
mod units;
mod value;

pub use effective::Effective;
pub use environment::Environment;
pub use error::ConfigError;
pub use keys::Key;
pub use mount_options::Libfuse;
pub use mount_options::MountOptions;
pub use mount_options::PageCache;
pub use mount_options::command_line_properties;
pub use source::Origin;
pub use source::Source;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use log::Level;

use keys::Kind;
use keys::Scope;
use properties::Property;
use value::Value;

const SITE_FILE: &str = "alluxio-site.properties";

/// Variables that stand for a property.
const SHORTCUTS: [(&str, &Key); 5] = [
    ("ALLUXIO_HOME", &keys::HOME),
    ("ALLUXIO_CONF_DIR", &keys::CONF_DIR),
    ("ALLUXIO_LOGS_DIR", &keys::LOGS_DIR),
    ("ALLUXIO_USER_LOGS_DIR", &keys::USER_LOGS_DIR),
    ("ALLUXIO_MASTER_HOSTNAME", &keys::MASTER_HOSTNAME),
];

/// Keys that decide where the site file or the logs are, so that the site file cannot hold them.
const NOT_IN_SITE_FILE: [&str; 5] = [
    "alluxio.conf.dir",
    "alluxio.site.conf.dir",
    "alluxio.logs.dir",
    "alluxio.user.logs.dir",
    "alluxio.version",
];

/// The settings of one process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The strongest text for each name; known keys under their present name.
    settings: BTreeMap<String, Setting>,
    /// What the known keys say; unset ones are absent.
    values: BTreeMap<&'static str, Value>,
    /// What the user should read, once there is a log.
    notes: Vec<(Level, String)>,
    /// Names of Alluxio's that this program does not read, until somebody is told.
    unused: BTreeSet<String>,
    environment: Environment,
}

#[derive(Clone, Debug)]
struct Setting {
    text: String,
    source: Source,
    origin: Origin,
}

impl Config {
    /// Reads everything there is to read on this machine. `runtime` are the properties of the command line.
    pub fn load(environment: Environment, runtime: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut config = Self {
            settings: BTreeMap::new(),
            values: BTreeMap::new(),
            notes: Vec::new(),
            unused: BTreeSet::new(),
            environment,
        };
        config.put_built_in();
        config.run_env_script()?;
        config.put_system_properties()?;
        for (name, text) in runtime {
            config.put(name, text, Source::Runtime, Origin::CommandLine);
        }
        config.put_site_file()?;
        config.put_container_properties();
        config.read_values()?;
        config.note_sinks();
        Ok(config)
    }

    /// Takes the master's settings (name, value) as defaults, as far as they are meant for clients. One that this
    /// program cannot use is left out with a note.
    pub fn add_cluster_defaults(&mut self, defaults: Vec<(String, String)>) -> Result<(), ConfigError> {
        self.take(defaults, Source::ClusterDefault, &Origin::Master)
    }

    fn take(
        &mut self,
        properties: Vec<(String, String)>,
        source: Source,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        for (name, text) in properties {
            let Some(key) = keys::find(name.trim()).filter(|key| key.scope == Scope::Client) else {
                continue;
            };
            let setting = Setting { text: text.trim().to_owned(), source, origin: origin.clone() };
            if let Err(problem) = self.try_default(key, setting) {
                self.notes.push((Level::Warn, format!("{problem}; it is not used")));
            }
        }
        self.read_values()
    }

    /// These settings, with what the master says (name, value) for everything at and below `path`. What this program
    /// cannot use is left out with a note.
    pub fn for_path(&self, path: &str, properties: Vec<(String, String)>) -> Result<Self, ConfigError> {
        let mut config = self.clone();
        config.take(properties, Source::PathDefault, &Origin::MasterForPath(path.to_owned()))?;
        Ok(config)
    }

    /// A text, which may be empty if somebody says so; only for keys that have a default.
    pub fn text(&self, key: &'static Key) -> &str {
        match self.values.get(key.name) {
            Some(Value::Text(text)) => text,
            other => absent(key, other).unwrap_or_else(|| unset(key)),
        }
    }

    /// A text, or nothing if it is unset or empty.
    pub fn optional_text(&self, key: &'static Key) -> Option<&str> {
        match self.values.get(key.name) {
            Some(Value::Text(text)) => Some(text.as_str()).filter(|text| !text.is_empty()),
            other => absent(key, other),
        }
    }

    /// The elements of a list; none if it is unset.
    pub fn list(&self, key: &'static Key) -> &[String] {
        match self.values.get(key.name) {
            Some(Value::List(elements)) => elements,
            other => absent(key, other).unwrap_or(&[]),
        }
    }

    /// Numbers of bytes.
    pub fn sizes(&self, key: &'static Key) -> &[u64] {
        match self.values.get(key.name) {
            Some(Value::Sizes(sizes)) => sizes,
            other => absent(key, other).unwrap_or(&[]),
        }
    }

    /// A switch.
    pub fn flag(&self, key: &'static Key) -> bool {
        match self.values.get(key.name) {
            Some(Value::Flag(flag)) => *flag,
            other => absent(key, other).unwrap_or_else(|| unset(key)),
        }
    }

    /// A whole number; only for keys that have a default.
    pub fn int(&self, key: &'static Key) -> i64 {
        self.optional_int(key).unwrap_or_else(|| unset(key))
    }

    /// A whole number, if it is set.
    pub fn optional_int(&self, key: &'static Key) -> Option<i64> {
        match self.values.get(key.name) {
            Some(Value::Int(number)) => Some(*number),
            other => absent(key, other),
        }
    }

    /// A time; only for keys whose times are never negative.
    pub fn duration(&self, key: &'static Key) -> Duration {
        assert!(key.kind == Kind::Duration, "{} may be negative", key.name);
        self.optional_duration(key).unwrap_or_else(|| unset(key))
    }

    /// A time, or nothing if it is negative.
    pub fn optional_duration(&self, key: &'static Key) -> Option<Duration> {
        match self.values.get(key.name) {
            Some(Value::Duration(time)) => *time,
            other => absent(key, other),
        }
    }

    /// A number of bytes, if somebody has said one.
    pub fn optional_bytes(&self, key: &'static Key) -> Option<u64> {
        match self.values.get(key.name) {
            Some(Value::Bytes(bytes)) => Some(*bytes),
            other => absent(key, other),
        }
    }

    /// A number of bytes.
    pub fn bytes(&self, key: &'static Key) -> u64 {
        match self.values.get(key.name) {
            Some(Value::Bytes(bytes)) => *bytes,
            other => absent(key, other).unwrap_or_else(|| unset(key)),
        }
    }

    /// Where the value came from.
    pub fn source(&self, key: &'static Key) -> Source {
        self.settings.get(key.name).map_or(Source::Default, |setting| setting.source)
    }

    /// Where somebody would change the value.
    pub fn origin(&self, key: &'static Key) -> Origin {
        self.settings.get(key.name).map_or(Origin::BuiltIn, |setting| setting.origin.clone())
    }

    /// Whether somebody on this machine set it, rather than the program or the cluster.
    pub fn is_set_by_user(&self, key: &'static Key) -> bool {
        self.source(key) > Source::ClusterDefault
    }

    /// The mount options in force.
    pub fn mount_options(&self) -> Result<MountOptions, ConfigError> {
        let origin = self.origin(&keys::FUSE_MOUNT_OPTIONS);
        let idle = self.environment.variable(mount_options::IDLE_VARIABLE)?;
        MountOptions::parse(self.text(&keys::FUSE_MOUNT_OPTIONS), &origin, idle)
    }

    /// Which libfuse to use.
    pub fn libfuse(&self) -> Libfuse {
        match self.optional_int(&keys::FUSE_LIBFUSE_VERSION) {
            Some(2) => Libfuse::Only2,
            Some(3) => Libfuse::Only3,
            Some(_) | None => Libfuse::Either,
        }
    }

    /// Directory of the logs: as set, or a private one of this user.
    pub fn logs_dir(&self) -> PathBuf {
        match self.optional_text(&keys::LOGS_DIR) {
            Some(dir) => PathBuf::from(dir),
            None => self.environment.state_dir().join("logs"),
        }
    }

    /// Directories for the list of mounts, the best one first.
    pub fn runtime_dirs(&self) -> Vec<PathBuf> {
        self.environment.runtime_dirs()
    }

    /// The name this user has towards the cluster.
    pub fn login_user(&self) -> &str {
        self.optional_text(&keys::SECURITY_LOGIN_USERNAME).unwrap_or_else(|| self.environment.user())
    }

    /// What is worth a line in the log, once; asked again it has nothing more to say.
    pub fn take_notes(&mut self) -> Vec<(Level, String)> {
        let mut notes = std::mem::take(&mut self.notes);
        let unused = std::mem::take(&mut self.unused);
        if !unused.is_empty() {
            let names: Vec<_> = unused.into_iter().collect();
            notes.push((Level::Info, format!("properties without effect on a mount: {}", names.join(", "))));
        }
        notes
    }

    fn put_built_in(&mut self) {
        let home = self.environment.home().map(str::to_owned);
        let user = self.environment.user().to_owned();
        for (name, text) in [("user.home", home), ("user.name", Some(user))] {
            if let Some(text) = text {
                self.put(name, &text, Source::Default, Origin::BuiltIn);
            }
        }
    }

    fn run_env_script(&mut self) -> Result<(), ConfigError> {
        if let Some((script, printed)) = self.environment.run_script()? {
            self.notes.push((Level::Info, format!("variables of {} taken", script.display())));
            if !printed.is_empty() {
                self.notes.push((Level::Warn, format!("{} printed: {printed}", script.display())));
            }
        }
        Ok(())
    }

    /// Variables first, then the Java options: a `-D` says it more plainly.
    fn put_system_properties(&mut self) -> Result<(), ConfigError> {
        let environment = self.environment.clone();
        if let Some(home) = environment.variable("ALLUXIO_HOME")? {
            let variable = || environment.origin("ALLUXIO_HOME");
            self.put(keys::CONF_DIR.name, &format!("{home}/conf"), Source::SystemProperty, variable());
            self.put(keys::LOGS_DIR.name, &format!("{home}/logs"), Source::SystemProperty, variable());
        }
        for (variable, key) in SHORTCUTS {
            if let Some(text) = environment.variable(variable)? {
                self.put(key.name, text, Source::SystemProperty, environment.origin(variable));
            }
        }
        let value = |name: &str| environment.variable(name).ok().flatten();
        for variable in ["ALLUXIO_JAVA_OPTS", "ALLUXIO_FUSE_JAVA_OPTS"] {
            let text = environment.variable(variable)?.unwrap_or_default();
            let pairs = java_opts::system_properties(text, value)
                .map_err(|problem| ConfigError::new(format!("environment variable {variable}: {problem}")))?;
            for (name, text) in pairs {
                self.put(&name, &text, Source::SystemProperty, environment.origin(variable));
            }
        }
        Ok(())
    }

    fn put_site_file(&mut self) -> Result<(), ConfigError> {
        let Some((path, bytes)) = self.find_site_file()? else {
            self.notes.push((Level::Debug, format!("no {SITE_FILE} found")));
            return Ok(());
        };
        let properties = properties::parse(&bytes).map_err(|problem| {
            ConfigError::new(format!("{}:{}: {}", path.display(), problem.line, problem.message))
        })?;
        for property in properties {
            let origin = Origin::File(path.clone(), property.line);
            if NOT_IN_SITE_FILE.contains(&property.name.as_str()) {
                return Err(ConfigError::new(format!(
                    "{origin}: {} is not accepted in {SITE_FILE}, and must be specified as a JVM property, \
                     such as `ALLUXIO_JAVA_OPTS=-D{}=...`",
                    property.name, property.name
                )));
            }
            self.put(&property.name, &property.value, Source::SiteProperty, origin);
        }
        self.notes.push((Level::Info, format!("configuration file {} loaded", path.display())));
        Ok(())
    }

    /// Somebody may count on metrics that Alluxio's own clients send elsewhere. Those that are asked for are here, too.
    fn note_sinks(&mut self) {
        let Some(file) = self.optional_text(&keys::METRICS_CONF_FILE).map(PathBuf::from) else { return };
        let properties = std::fs::read(&file).ok().and_then(|bytes| properties::parse(&bytes).ok());
        let sinks: Vec<String> =
            properties.unwrap_or_default().iter().filter_map(sink).map(str::to_owned).collect();
        if !sinks.is_empty() {
            let note = format!(
                "{}: no metrics are sent to {}, collect those at /metrics/prometheus/ ({}=true)",
                file.display(),
                sinks.join(", "),
                keys::FUSE_WEB_ENABLED.name
            );
            self.notes.push((Level::Warn, note));
        }
    }

    /// They stand in for lines of the site file, which Alluxio's image appends them to.
    fn put_container_properties(&mut self) {
        if let Some(user) = self.environment.wanted_user() {
            let note = format!(
                "ALLUXIO_USERNAME={user} does nothing here, run the container as that user (runAsUser, --user)"
            );
            self.notes.push((Level::Warn, note));
        }
        for (variable, name, text) in self.environment.properties() {
            self.put(&name, &text, Source::SiteProperty, Origin::Variable(variable.into()));
        }
    }

    fn find_site_file(&mut self) -> Result<Option<(PathBuf, Vec<u8>)>, ConfigError> {
        let setting = self.settings.get(keys::SITE_CONF_DIR.name).cloned();
        let text = setting.as_ref().map(|setting| setting.text.as_str()).or(keys::SITE_CONF_DIR.default);
        for dir in value::split_list(text.unwrap_or_default()) {
            let dir = match (self.resolve(&dir, &mut Vec::new()), &setting) {
                (Ok(dir), _) => dir,
                // The default list names directories that need not be known.
                (Err(_), None) => continue,
                (Err(problem), Some(setting)) => {
                    return Err(complain(keys::SITE_CONF_DIR.name, setting, &problem));
                }
            };
            let dir = match (dir.strip_prefix("~/"), self.environment.home()) {
                (Some(rest), Some(home)) => Path::new(home).join(rest),
                _ => PathBuf::from(dir),
            };
            let path = std::path::absolute(dir.join(SITE_FILE)).unwrap_or_else(|_| dir.join(SITE_FILE));
            match std::fs::read(&path) {
                Ok(bytes) => return Ok(Some((path, bytes))),
                Err(err) if is_absent(&err) => {}
                // In somebody else's home, as after `su`, nothing can be looked for. A file that is there but
                // closed is an error.
                Err(err)
                    if err.kind() == std::io::ErrorKind::PermissionDenied && path.metadata().is_err() =>
                {
                    self.notes.push((Level::Warn, format!("cannot look for {}: {err}", path.display())));
                }
                Err(err) => return Err(ConfigError::new(format!("cannot read {}: {err}", path.display()))),
            }
        }
        Ok(None)
    }

    /// Records a setting unless a stronger source has one. Blanks around it are none of it, as in Alluxio, but on the
    /// command line, where somebody has quoted them.
    fn put(&mut self, name: &str, text: &str, source: Source, origin: Origin) {
        let (name, text) = if source == Source::Runtime { (name, text) } else { (name.trim(), text.trim()) };
        let name = self.present_name(name, &origin);
        let weaker = self.settings.get(name.as_str()).is_none_or(|old| old.source <= source);
        if weaker {
            self.settings.insert(name, Setting { text: text.to_owned(), source, origin });
        }
    }

    /// The name under which a key is kept, with a note if it is an old one or unknown.
    fn present_name(&mut self, name: &str, origin: &Origin) -> String {
        let Some(key) = keys::find(name) else {
            if name.starts_with("alluxio.") {
                match slip(name, origin) {
                    Some(note) => self.notes.push((Level::Warn, note)),
                    None => drop(self.unused.insert(name.to_owned())),
                }
            }
            return name.to_owned();
        };
        if key.name != name {
            let note = format!("{name} ({origin}) is deprecated, use {} instead", key.name);
            self.notes.push((Level::Warn, note));
        }
        key.name.to_owned()
    }

    /// Puts one cluster default and takes it back if it cannot be used.
    fn try_default(&mut self, key: &'static Key, setting: Setting) -> Result<(), ConfigError> {
        if self.settings.get(key.name).is_some_and(|old| old.source > setting.source) {
            return Ok(());
        }
        let before = self.settings.insert(key.name.to_owned(), setting);
        let outcome = self.read_value(key);
        if outcome.is_err() {
            match before {
                Some(before) => self.settings.insert(key.name.to_owned(), before),
                None => self.settings.remove(key.name),
            };
        }
        outcome.map(|_| ())
    }

    /// Reads all known keys anew, as a reference may have changed any of them.
    fn read_values(&mut self) -> Result<(), ConfigError> {
        let mut values = BTreeMap::new();
        for key in keys::all() {
            if let Some(value) = self.read_value(key)? {
                values.insert(key.name, value);
            }
        }
        self.values = values;
        Ok(())
    }

    fn read_value(&self, key: &'static Key) -> Result<Option<Value>, ConfigError> {
        let built_in = key.default.map(|text| Setting {
            text: text.to_owned(),
            source: Source::Default,
            origin: Origin::BuiltIn,
        });
        let Some(setting) = self.settings.get(key.name).cloned().or(built_in) else {
            return Ok(None);
        };
        let text = match self.resolve(&setting.text, &mut vec![key.name.to_owned()]) {
            Ok(text) => text,
            // A default that builds on an unset key is unset.
            Err(_) if setting.source == Source::Default => return Ok(None),
            Err(problem) => return Err(complain(key.name, &setting, &problem)),
        };
        match value::parse(key.kind, &text) {
            Ok(value) => Ok(Some(value)),
            Err(problem) => Err(complain(key.name, &Setting { text, ..setting }, &problem)),
        }
    }

    /// Replaces each `${name}` by that name's value. `path` are the names that led here.
    fn resolve(&self, text: &str, path: &mut Vec<String>) -> Result<String, String> {
        let mut resolved = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else { break };
            let name = &rest[start + 2..start + length];
            let key = keys::find(name);
            let name = key.map_or(name, |key| key.name);
            let set = self.settings.get(name).map(|setting| setting.text.as_str());
            let Some(inner) = set.or(key.and_then(|key| key.default)) else {
                return Err(format!("${{{name}}} is not set"));
            };
            if path.iter().any(|earlier| earlier == name) {
                return Err(format!("{} -> {name} refers to itself", path.join(" -> ")));
            }
            path.push(name.to_owned());
            resolved.push_str(&rest[..start]);
            resolved.push_str(&self.resolve(inner, path)?);
            path.pop();
            rest = &rest[start + length + 1..];
        }
        resolved.push_str(rest);
        Ok(resolved)
    }
}

#[cfg(test)]
impl Config {
    /// `properties` (name, value) of the command line, for tests: the site file of whoever runs them does not count.
    pub(crate) fn given(properties: &[(&str, &str)]) -> Result<Self, ConfigError> {
        let own = [("alluxio.site.conf.dir", "/nonexistent")];
        let properties: Vec<_> = own
            .iter()
            .chain(properties)
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        Self::load(Environment::of_process(), &properties)
    }
}

/// For a getter that found no value of its own type.
fn absent<T>(key: &'static Key, value: Option<&Value>) -> Option<T> {
    assert!(value.is_none(), "{} is read as something else than {:?}", key.name, key.kind);
    None
}

/// For a getter of a key that always has a value, unless the table or the caller is wrong.
fn unset(key: &'static Key) -> ! {
    panic!("{} has no default and is read as if it had one", key.name)
}

fn complain(name: &str, setting: &Setting, problem: &str) -> ConfigError {
    ConfigError::new(format!("{name}={} ({}): {problem}", setting.text, setting.origin))
}

/// A name outside the table is most likely one of Alluxio's for its servers, or else a slip, which this explains.
fn slip(name: &str, origin: &Origin) -> Option<String> {
    let names = keys::all().map(|key| key.name);
    // One letter only: `alluxio.master.web.port` is no slip of `alluxio.master.rpc.port`.
    let known = nearest::nearest(name, names, 1)?;
    Some(format!("property {name} ({origin}) is unknown, did you mean {known}?"))
}

/// The class of the sink that `property` names, unless its metrics are only collected: `sink.jmx.class`.
fn sink(property: &Property) -> Option<&str> {
    let name = property.name.trim().strip_suffix(".class")?;
    let class = property.value.trim().rsplit('.').next()?;
    (name.contains("sink.") && !class.is_empty() && !class.contains("Servlet")).then_some(class)
}

fn is_absent(err: &std::io::Error) -> bool {
    matches!(err.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
