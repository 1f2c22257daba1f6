//! The web server of a mount, and the pages of figures as those read them who they are for: JSON, and Prometheus' own
//! library for Python.

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::mount::Mount;
use super::mount::Spec;
use super::wait_until;

/// The name under which test mounts count.
pub(crate) const CLIENT: &str = "a.test";

/// The same as Prometheus takes it.
pub(crate) const SOURCE: &str = "a_test";

const PATIENCE: Duration = Duration::from_secs(60);

/// The same mount with a web server, at a port of its own.
pub(crate) fn with_web(spec: Spec) -> Spec {
    spec.property("alluxio.fuse.web.enabled", "true")
        .property("alluxio.fuse.web.port", "0")
        .property("alluxio.user.app.id", CLIENT)
}

/// The web server of one mount.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
}

/// What it answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Web {
    /// That of `mount`.
    pub(crate) fn of(mount: &Mount) -> Web {
        let started = || mount.logged("Serving metrics at ");
        wait_until("the web server is there", PATIENCE, || !started().is_empty());
        let line = started().pop().expect("just seen");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        Web { address: address.parse().unwrap() }
    }

    /// A connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request without a body.
    pub(crate) fn request(&self, method: &str, path: &str) -> Answer {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        read_answer(&mut stream)
    }

    /// The page at `path`; panics unless it is there.
    pub(crate) fn get(&self, path: &str) -> String {
        let answer = self.request("GET", path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// The figures of now, from both pages.
    pub(crate) fn figures(&self) -> Figures {
        let json = serde_json::from_str(&self.get("/metrics/json/")).unwrap();
        Figures { json, samples: parsed(&self.get("/metrics/prometheus/")) }
    }
}

/// What comes on `stream` until its end.
pub(crate) fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut text = Vec::new();
    // An answer before the end of a request that is too long comes with a broken connection.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {text:?}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The figures of one moment.
pub(crate) struct Figures {
    pub(crate) json: Value,
    samples: BTreeMap<String, f64>,
}

impl Figures {
    /// How often `name` happened, in JSON: a counter, a meter or a timer.
    pub(crate) fn java(&self, kind: &str, name: &str) -> u64 {
        let entry = &self.json[kind][format!("Client.{name}.{CLIENT}")];
        entry["count"].as_u64().or_else(|| entry["value"].as_u64()).unwrap_or(0)
    }

    /// The sample of Prometheus, as `name{label=value,...}` with sorted labels; 0 if there is none.
    pub(crate) fn sample(&self, name: &str) -> f64 {
        self.samples.get(name).copied().unwrap_or(0.0)
    }

    /// The sum of those whose names begin with `start`.
    pub(crate) fn sum(&self, start: &str) -> f64 {
        self.samples
            .range(start.to_owned()..)
            .take_while(|(name, _)| name.starts_with(start))
            .map(|(_, value)| value)
            .sum()
    }

    /// All samples.
    pub(crate) fn samples(&self) -> &BTreeMap<String, f64> {
        &self.samples
    }
}

/// Reads a page by Prometheus' library, which refuses what does not keep to the format.
const READER: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
found, kinds = {}, {}
for family in parse(sys.stdin.read()):
    assert family.documentation and family.type != 'unknown', family
    assert family.name not in kinds, family.name + ' comes twice'
    kinds[family.name] = family.type
    for sample in family.samples:
        labels = ','.join('%s=%s' % pair for pair in sorted(sample.labels.items()))
        name = sample.name + ('{%s}' % labels if labels else '')
        assert name not in found, name + ' comes twice'
        found[name] = sample.value
json.dump(found, sys.stdout)
";

fn parsed(page: &str) -> BTreeMap<String, f64> {
    let mut reader = Command::new("/usr/bin/python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = reader.stdin.take().expect("started with a pipe");
    input.write_all(page.as_bytes()).unwrap();
    drop(input);
    let output = reader.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "Prometheus does not take the page (`tests/setup/deps programs`):\n{page}"
    );
    let found: BTreeMap<String, f64> = serde_json::from_slice(&output.stdout).unwrap();
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(found.len(), lines, "lines that were not understood");
    found
}

/// What something has added to the figures.
pub(crate) struct Added {
    pub(crate) before: Figures,
    pub(crate) after: Figures,
}

/// What `work` adds to the figures of `web`.
pub(crate) fn added(web: &Web, work: impl FnOnce()) -> Added {
    let before = web.figures();
    work();
    Added { before, after: web.figures() }
}

impl Added {
    pub(crate) fn sample(&self, name: &str) -> usize {
        (self.after.sample(name) - self.before.sample(name)) as usize
    }

    pub(crate) fn op(&self, op: &str) -> usize {
        self.sample(&format!("alluxio_fuse_operation_seconds_count{{op={op}}}"))
    }

    pub(crate) fn failures(&self, op: &str, error: &str) -> usize {
        self.sample(&format!("alluxio_fuse_operation_failures_total{{error={error},op={op}}}"))
    }

    /// By Alluxio's name, which is the same on both pages.
    pub(crate) fn java(&self, op: &str) -> usize {
        let name = format!("Fuse.{op}");
        let json = self.after.java("timers", &name) - self.before.java("timers", &name);
        let summary = self.sample(&format!("Client_Fuse_{op}_{SOURCE}_count"));
        assert_eq!(json as usize, summary, "{op} differs between the pages");
        summary
    }

    pub(crate) fn java_failures(&self, op: &str) -> usize {
        let name = format!("Fuse.{op}Failures");
        let json = self.after.java("counters", &name) - self.before.java("counters", &name);
        assert_eq!(json as usize, self.sample(&format!("Client_Fuse_{op}Failures_{SOURCE}")));
        json as usize
    }

    pub(crate) fn bytes(&self, source: &str) -> usize {
        self.sample(&format!("alluxio_fuse_read_bytes_total{{source={source}}}"))
    }

    pub(crate) fn all_bytes(&self) -> usize {
        let start = "alluxio_fuse_read_bytes_total";
        (self.after.sum(start) - self.before.sum(start)) as usize
    }
}
