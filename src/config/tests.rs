//! Precedence, search and substitution, over made-up surroundings.

use std::path::Path;
use std::time::Duration;

use super::*;

/// A home with `site` as its alluxio-site.properties.
fn home(site: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".alluxio")).unwrap();
    std::fs::write(home.path().join(".alluxio/alluxio-site.properties"), site).unwrap();
    home
}

fn load(site: &str, variables: &[(&str, &str)], runtime: &[(&str, &str)]) -> Result<Config, String> {
    load_at(home(site).path(), variables, runtime)
}

fn load_at(home: &Path, variables: &[(&str, &str)], runtime: &[(&str, &str)]) -> Result<Config, String> {
    let runtime: Vec<_> =
        runtime.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Config::load(Environment::made_up(variables, home), &runtime).map_err(|problem| problem.to_string())
}

fn site_dir(site: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("alluxio-site.properties"), site).unwrap();
    dir
}

const PORT: &str = "alluxio.master.rpc.port";

#[test]
fn each_source_beats_the_weaker_ones() {
    let site = format!("{PORT}=2");
    let variables = [("ALLUXIO_JAVA_OPTS", "-Xmx1G -Dalluxio.master.rpc.port=3")];
    let port = |config: &Config| config.int(&keys::MASTER_RPC_PORT);

    let config = load("", &[], &[]).unwrap();
    assert_eq!((port(&config), config.source(&keys::MASTER_RPC_PORT)), (19_998, Source::Default));
    assert!(!config.is_set_by_user(&keys::MASTER_RPC_PORT));

    let config = load(&site, &[], &[]).unwrap();
    assert_eq!((port(&config), config.source(&keys::MASTER_RPC_PORT)), (2, Source::SiteProperty));
    assert!(config.is_set_by_user(&keys::MASTER_RPC_PORT));

    let config = load(&site, &variables, &[]).unwrap();
    assert_eq!((port(&config), config.source(&keys::MASTER_RPC_PORT)), (3, Source::SystemProperty));

    let config = load(&site, &variables, &[(PORT, "4")]).unwrap();
    assert_eq!((port(&config), config.source(&keys::MASTER_RPC_PORT)), (4, Source::Runtime));
}

#[test]
fn fuse_java_options_beat_the_general_ones_and_the_shortcuts() {
    let variables = [
        ("ALLUXIO_MASTER_HOSTNAME", "a"),
        ("ALLUXIO_JAVA_OPTS", "-Dalluxio.master.hostname=b"),
        ("ALLUXIO_FUSE_JAVA_OPTS", "-Dalluxio.master.hostname=c"),
    ];
    for (count, expected) in [(1, "a"), (2, "b"), (3, "c")] {
        let config = load("", &variables[..count], &[]).unwrap();
        assert_eq!(config.optional_text(&keys::MASTER_HOSTNAME), Some(expected));
    }
}

#[test]
fn cluster_defaults_beat_built_in_ones_only() {
    let mut config = load("alluxio.user.file.readtype.default=NO_CACHE", &[], &[]).unwrap();
    let given = [
        ("alluxio.user.file.writetype.default", "THROUGH"),
        ("alluxio.user.file.readtype.default", "CACHE_PROMOTE"),
        ("alluxio.user.network.rpc.keepalive.time", "45sec"),
        ("alluxio.user.rpc.retry.max.duration", "soon"),
        ("alluxio.fuse.mount.point", "/elsewhere"),
        ("alluxio.master.web.port", "19999"),
    ];
    config.take_notes();
    let given = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    config.add_cluster_defaults(given).unwrap();
    assert_eq!(config.text(&keys::USER_WRITE_TYPE), "THROUGH");
    assert_eq!(config.source(&keys::USER_WRITE_TYPE), Source::ClusterDefault);
    assert!(!config.is_set_by_user(&keys::USER_WRITE_TYPE));
    assert_eq!(config.text(&keys::USER_READ_TYPE), "NO_CACHE");
    let streaming = config.optional_duration(&keys::USER_STREAMING_KEEPALIVE);
    assert_eq!(streaming, Some(Duration::from_secs(45)), "a reference sees the new value");
    assert_eq!(config.duration(&keys::USER_RPC_RETRY_DURATION), Duration::from_secs(120));
    assert_eq!(config.text(&keys::FUSE_MOUNT_POINT), "/mnt/alluxio-fuse", "a local matter");
    let notes = config.take_notes();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].1.contains("alluxio.user.rpc.retry.max.duration=soon (cluster default)"), "{notes:?}");
}

#[test]
fn blanks_around_a_setting_are_none_of_it() {
    let site = "alluxio.master.hostname=host \t\nalluxio.user.app.id=\\ a b \\ \n";
    let java = [("ALLUXIO_JAVA_OPTS", "'-Dalluxio.user.hostname= node '")];
    let mut config = load(site, &java, &[("alluxio.fuse.mount.point", "/mnt/quoted ")]).unwrap();
    let cluster = ("alluxio.user.file.direct.access ".to_owned(), " /a.* ".to_owned());
    config.add_cluster_defaults(vec![cluster]).unwrap();
    assert_eq!(config.text(&keys::MASTER_HOSTNAME), "host");
    assert_eq!(config.text(&keys::USER_APP_ID), "a b");
    assert_eq!(config.text(&keys::USER_HOSTNAME), "node");
    assert_eq!(config.text(&keys::USER_DIRECT_ACCESS), "/a.*");
    assert_eq!(config.text(&keys::FUSE_MOUNT_POINT), "/mnt/quoted ");
}

#[test]
fn the_first_site_file_is_the_only_one() {
    let home = home("alluxio.master.rpc.port=2\nalluxio.user.app.id=home");
    let conf = site_dir("alluxio.master.rpc.port=1");
    let dir = conf.path().to_str().unwrap();
    let config = load_at(home.path(), &[("ALLUXIO_CONF_DIR", dir)], &[]).unwrap();
    assert_eq!(config.int(&keys::MASTER_RPC_PORT), 1);
    assert_eq!(config.optional_text(&keys::USER_APP_ID), None);
    let expected = Origin::File(conf.path().join("alluxio-site.properties"), 1);
    assert_eq!(config.origin(&keys::MASTER_RPC_PORT), expected);

    let install = tempfile::tempdir().unwrap();
    std::fs::create_dir(install.path().join("conf")).unwrap();
    std::fs::write(install.path().join("conf/alluxio-site.properties"), "alluxio.master.rpc.port=3").unwrap();
    let variables = [("ALLUXIO_HOME", install.path().to_str().unwrap())];
    let config = load_at(home.path(), &variables, &[]).unwrap();
    assert_eq!(config.int(&keys::MASTER_RPC_PORT), 3);
    assert_eq!(config.logs_dir(), install.path().join("logs"));
}

#[test]
fn the_search_list_can_be_given() {
    let conf = site_dir("alluxio.master.rpc.port=7");
    let options = format!("-Dalluxio.site.conf.dir=/nowhere,{}", conf.path().display());
    let config = load("alluxio.master.rpc.port=2", &[("ALLUXIO_JAVA_OPTS", &options)], &[]).unwrap();
    assert_eq!(config.int(&keys::MASTER_RPC_PORT), 7);
    let options = "-Dalluxio.site.conf.dir=${nothing}/x";
    let problem = load("", &[("ALLUXIO_JAVA_OPTS", options)], &[]).unwrap_err();
    assert!(problem.contains("${nothing} is not set"), "{problem}");
}

#[test]
fn a_bad_value_names_key_place_and_what_is_allowed() {
    let home = home("# one\nalluxio.user.file.writetype.default=FAST\n");
    let problem = load_at(home.path(), &[], &[]).unwrap_err();
    let path = home.path().join(".alluxio/alluxio-site.properties");
    assert_eq!(
        problem,
        format!(
            "alluxio.user.file.writetype.default=FAST ({}:2): expected one of MUST_CACHE, CACHE_THROUGH, \
             THROUGH, ASYNC_THROUGH",
            path.display()
        )
    );
}

#[test]
fn a_bad_line_names_file_and_line() {
    let problem = load("a=1\n\nb=\\u00zz", &[], &[]).unwrap_err();
    assert!(problem.contains("alluxio-site.properties:3: \\u00zz is not"), "{problem}");
}

#[test]
fn keys_that_place_the_site_file_are_refused_in_it() {
    let problem = load("alluxio.logs.dir=/x", &[], &[]).unwrap_err();
    assert!(problem.contains("alluxio.logs.dir is not accepted in alluxio-site.properties"), "{problem}");
}

#[test]
fn references_are_resolved_and_cycles_found() {
    let site = "my.base=/b\nmy.dir=${my.base}/d\nalluxio.user.app.id=${my.dir}-${user.name}\n\
                alluxio.user.block.size.bytes.default=1KB\nalluxio.user.file.sequential.pread.threshold=\
                ${alluxio.user.block.size.bytes.default}";
    let config = load(site, &[], &[]).unwrap();
    assert_eq!(config.optional_text(&keys::USER_APP_ID), Some("/b/d-tester"));
    assert_eq!(config.bytes(&keys::USER_PREAD_THRESHOLD), 1024);

    let problem = load("a=${b}\nb=x${a}\nalluxio.user.app.id=${a}", &[], &[]).unwrap_err();
    assert!(problem.contains("alluxio.user.app.id -> a -> b -> a refers to itself"), "{problem}");
    let problem = load("alluxio.user.app.id=${alluxio.user.app.id}", &[], &[]).unwrap_err();
    assert!(problem.contains("refers to itself"), "{problem}");
    let problem = load("alluxio.user.app.id=${nothing}", &[], &[]).unwrap_err();
    assert!(problem.contains("${nothing} is not set"), "{problem}");
}

#[test]
fn old_names_count_and_are_noted() {
    let mut config = load("alluxio.worker.fuse.mount.point=/old", &[], &[]).unwrap();
    assert_eq!(config.text(&keys::FUSE_MOUNT_POINT), "/old");
    let notes = config.take_notes();
    let warned = notes
        .iter()
        .any(|(level, note)| *level == Level::Warn && note.contains("use alluxio.fuse.mount.point instead"));
    assert!(warned, "{notes:?}");
}

#[test]
fn unknown_keys_are_accepted_with_a_note() {
    let site = "alluxio.master.journal.folder=/j\nalluxio.user.file.writetype.defualt=THROUGH\nother=1";
    let mut config = load(site, &[], &[]).unwrap();
    let notes = config.take_notes();
    let level = |name: &str| notes.iter().find(|(_, note)| note.contains(name)).map(|(level, _)| *level);
    assert_eq!(level("alluxio.master.journal.folder"), Some(Level::Info));
    assert_eq!(level("did you mean alluxio.user.file.writetype.default"), Some(Level::Warn));
    assert_eq!(level("other"), None);
}

#[test]
fn command_line_options_replace_those_of_the_site_file() {
    let site = "alluxio.fuse.mount.options=attr_timeout=600,entry_timeout=600";
    let options = load(site, &[], &[]).unwrap().mount_options().unwrap();
    assert_eq!(options.attr_timeout, Duration::from_secs(600));
    assert_eq!(options.page_cache, PageCache::Default);
    let line = command_line_properties(&["allow_other".to_owned()]).unwrap();
    let config = Config::load(Environment::made_up(&[], home(site).path()), &line).unwrap();
    let options = config.mount_options().unwrap();
    assert_eq!(options.attr_timeout, Duration::from_secs(1));
    assert_eq!(options.kernel_words, ["allow_other"]);
    let options = load("", &[], &[]).unwrap().mount_options().unwrap();
    assert_eq!(options.page_cache, PageCache::DirectIo, "the default");
}

#[test]
fn libfuse_is_chosen_by_number() {
    let choice = |text| {
        load("", &[], &[("alluxio.fuse.jnifuse.libfuse.version", text)]).map(|config| config.libfuse())
    };
    assert_eq!(choice("2"), Ok(Libfuse::Only2));
    assert_eq!(choice("3"), Ok(Libfuse::Only3));
    assert_eq!(choice("0"), Ok(Libfuse::Either));
    assert_eq!(choice("-5"), Ok(Libfuse::Either));
    assert!(choice("three").unwrap_err().contains("expected a whole number"));
    assert_eq!(load("", &[], &[]).unwrap().libfuse(), Libfuse::Either);
}

#[test]
fn logs_go_to_the_first_place_that_is_known() {
    let home = home("");
    let config = load_at(home.path(), &[], &[]).unwrap();
    assert_eq!(config.logs_dir(), home.path().join(".local/state/alluxio-fuse/logs"));
    let home_only = [("ALLUXIO_HOME", "/opt/a")];
    assert_eq!(load("", &home_only, &[]).unwrap().logs_dir(), Path::new("/opt/a/logs"));
    let variables = [("ALLUXIO_HOME", "/opt/a"), ("ALLUXIO_LOGS_DIR", "/l")];
    assert_eq!(load("", &variables, &[]).unwrap().logs_dir(), Path::new("/l"));
    let property = [("alluxio.logs.dir", "/p")];
    assert_eq!(load("", &variables, &property).unwrap().logs_dir(), Path::new("/p"));
}

#[test]
fn negative_times_mean_never() {
    let config = load("alluxio.user.file.create.ttl=1h", &[], &[]).unwrap();
    assert_eq!(config.optional_duration(&keys::USER_CREATE_TTL), Some(Duration::from_secs(3600)));
    assert_eq!(config.optional_duration(&keys::USER_SYNC_INTERVAL), None);
}

#[test]
fn variables_of_a_container_stand_for_properties() {
    let variables = [
        ("ALLUXIO_USER_FILE_WRITETYPE_DEFAULT", "THROUGH"),
        ("ALLUXIO_MASTER_RPC_PORT", "7"),
        ("ALLUXIO_JAVA_OPTS", "-Dalluxio.master.rpc.port=8"),
    ];
    let home = home("alluxio.user.file.writetype.default=MUST_CACHE");
    let load = |environment| Config::load(environment, &[]).unwrap();
    let config = load(Environment::made_up(&variables, home.path()).in_container());
    assert_eq!(config.text(&keys::USER_WRITE_TYPE), "THROUGH");
    assert_eq!(config.int(&keys::MASTER_RPC_PORT), 8, "a -D is stronger");
    let origin = config.origin(&keys::USER_WRITE_TYPE).to_string();
    assert!(origin.contains("ALLUXIO_USER_FILE_WRITETYPE_DEFAULT"), "{origin}");
    let config = load(Environment::made_up(&variables, home.path()));
    assert_eq!(config.text(&keys::USER_WRITE_TYPE), "MUST_CACHE", "not outside a container");
}

#[test]
fn services_beside_a_container_stand_for_nothing() {
    let variables = [("ALLUXIO_MASTER_PORT", "tcp://10.0.0.1:19998"), ("ALLUXIO_MASTER_SERVICE_PORT", "1")];
    let config = Config::load(Environment::made_up(&variables, home("").path()).in_container(), &[]).unwrap();
    assert_eq!(config.source(&keys::MASTER_RPC_PORT), Source::Default);
}

#[test]
fn java_options_name_variables() {
    let variables = [
        ("ALLUXIO_CLIENT_HOSTNAME", "node-7"),
        (
            "ALLUXIO_JAVA_OPTS",
            "-Dalluxio.user.hostname=${ALLUXIO_CLIENT_HOSTNAME} -Dalluxio.user.app.id=${user.name}",
        ),
    ];
    let config = load("", &variables, &[]).unwrap();
    assert_eq!(config.optional_text(&keys::USER_HOSTNAME), Some("node-7"));
    assert_eq!(config.optional_text(&keys::USER_APP_ID), Some("tester"));
}

#[test]
fn variables_that_the_script_of_alluxio_sets_count() {
    let conf = site_dir("alluxio.master.rpc.port=1");
    let script = conf.path().join("alluxio-env.sh");
    std::fs::write(&script, "ALLUXIO_FUSE_JAVA_OPTS+=\" -Dalluxio.user.file.writetype.default=THROUGH\"\n")
        .unwrap();
    let (dir, path) = (conf.path().to_str().unwrap(), std::env::var("PATH").unwrap());
    let given = "-Dalluxio.master.rpc.port=2";
    let variables = [("ALLUXIO_CONF_DIR", dir), ("ALLUXIO_FUSE_JAVA_OPTS", given), ("PATH", &path)];
    let mut config = load("", &variables, &[]).unwrap();
    assert_eq!(config.text(&keys::USER_WRITE_TYPE), "THROUGH");
    assert_eq!(config.int(&keys::MASTER_RPC_PORT), 2, "it adds to what was given");
    let expected = format!("environment variable ALLUXIO_FUSE_JAVA_OPTS of {}", script.display());
    assert_eq!(config.origin(&keys::USER_WRITE_TYPE).to_string(), expected);
    let notes = config.take_notes();
    assert!(notes.iter().any(|(_, note)| note.contains("alluxio-env.sh taken")), "{notes:?}");

    std::fs::write(&script, "exit 5").unwrap();
    let problem = load("", &variables, &[]).unwrap_err();
    assert!(problem.contains("alluxio-env.sh: ") && problem.contains('5'), "{problem}");
}

#[test]
fn sinks_of_metrics_that_nothing_is_sent_to_are_noted() {
    let conf = site_dir("");
    let notes = |sinks: &str| {
        std::fs::write(conf.path().join("metrics.properties"), sinks).unwrap();
        let variables = [("ALLUXIO_CONF_DIR", conf.path().to_str().unwrap())];
        load("", &variables, &[]).unwrap().take_notes()
    };
    let prometheus = "sink.prometheus.class=alluxio.metrics.sink.PrometheusMetricsServlet\n";
    let is_warning = |(level, _): &(Level, String)| *level == Level::Warn;
    assert!(!notes(prometheus).iter().any(is_warning));
    let graphite =
        format!("{prometheus}sink.graphite.class=alluxio.metrics.sink.GraphiteSink\nsink.graphite.host=h\n");
    let found = notes(&graphite);
    let (_, note) = found.iter().find(|note| is_warning(note)).unwrap();
    assert!(
        note.contains("sent to GraphiteSink, collect") && note.contains("/metrics/prometheus/"),
        "{note}"
    );
}

#[test]
fn what_is_in_force_is_shown_with_its_source_and_without_secrets() {
    let site = "alluxio.user.block.size.bytes.default=4MB\nalluxio.user.network.rpc.keepalive.time=45s\naws.secretKey=a\nalluxio.x.secret=b\nalluxio.y=c";
    let config = load(site, &[], &[("alluxio.fuse.debug.enabled", "true")]).unwrap();
    let shown: Vec<String> = config.effective().iter().map(ToString::to_string).collect();
    let line = |name: &str| {
        shown.iter().find(|line| line.starts_with(&format!("{name}="))).cloned().unwrap_or_default()
    };
    assert!(line("alluxio.user.block.size.bytes.default").contains("=4MB ("));
    assert!(line("alluxio.user.block.size.bytes.default").contains("alluxio-site.properties:1)"));
    assert!(
        line("alluxio.user.network.streaming.keepalive.time")
            .starts_with("alluxio.user.network.streaming.keepalive.time=45s (built-in")
    );
    assert!(line("alluxio.fuse.debug.enabled").ends_with("=true (command line)"));
    assert!(line("alluxio.master.hostname").contains("=(not set) ("));
    assert!(line("alluxio.x.secret").contains("=(hidden) ("));
    assert!(line("alluxio.y").ends_with("not used by this program)"));
    assert!(!shown.iter().any(|line| line.contains("aws")));
}
