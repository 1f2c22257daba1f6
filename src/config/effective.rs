//! Every setting in force, for people: what it says, and where somebody would change it. Secrets are not shown.

use std::fmt;

use super::Config;
use super::Key;
use super::Origin;
use super::keys;

/// What a name of a setting has in it whose value nobody is to read over a shoulder or in a ticket.
const SECRETS: [&str; 7] =
    ["secret", "password", "passphrase", "credential", "token", "accesskey", "access.key"];

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its name.
    pub name: String,
    /// What it says, or nothing if it is not set. Secrets are replaced.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether this program reads it.
    pub used: bool,
}

impl fmt::Display for Effective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref().unwrap_or("(not set)");
        let note = if self.used { "" } else { ", not used by this program" };
        write!(out, "{}={value} ({}{note})", self.name, self.origin)
    }
}

impl Config {
    /// All settings: those that this program reads, set or not, and those of Alluxio that somebody has set for other
    /// programs, by name.
    pub fn effective(&self) -> Vec<Effective> {
        let mut all: Vec<Effective> = keys::all().map(|key| self.effective_of(key)).collect();
        let others = self.settings.iter().filter(|(name, _)| keys::find(name).is_none());
        all.extend(others.filter(|(name, _)| name.starts_with("alluxio.")).map(|(name, setting)| {
            Effective {
                name: name.clone(),
                value: Some(shown(name, setting.text.clone())),
                origin: setting.origin.clone(),
                used: false,
            }
        }));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn effective_of(&self, key: &'static Key) -> Effective {
        let set = self.settings.get(key.name).map(|setting| setting.text.as_str());
        let text =
            set.or(key.default).and_then(|text| self.resolve(text, &mut vec![key.name.to_owned()]).ok());
        Effective {
            name: key.name.to_owned(),
            value: text.map(|text| shown(key.name, text)),
            origin: self.origin(key),
            used: true,
        }
    }
}

fn shown(name: &str, value: String) -> String {
    let name = name.to_ascii_lowercase();
    if SECRETS.iter().any(|word| name.contains(word)) { "(hidden)".to_owned() } else { value }
}
