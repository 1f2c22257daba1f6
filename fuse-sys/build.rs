//! Makes the bindings of libfuse 2 and libfuse 3 from `../wrapper.h`. Both headers are needed to build; neither
//! library is linked.

use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use bindgen::Builder;
use bindgen::EnumVariation;

const WRAPPER: &str = "../wrapper.h";

/// One major version of libfuse, as far as building knows it.
struct Version {
    major: u32,
    header: &'static str,
    pkg_config: &'static str,
    packages: &'static str,
    /// The name of the generated struct of function pointers.
    library: &'static str,
    functions: &'static str,
    types: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        major: 2,
        header: "fuse/fuse_lowlevel.h",
        pkg_config: "fuse",
        packages: "`apt-get install libfuse-dev` or `yum install fuse-devel`",
        library: "Fuse2",
        functions: "fuse_(version|mount|unmount|lowlevel_new|reply_(err|none|buf|iov)|req_(ctx|userdata|interrupt_func)|\
                    opt_free_args|session_(add_chan|remove_chan|process_buf|exit|destroy)|chan_(new|fd|destroy))",
        types: "fuse_(lowlevel_ops|file_info|ctx|buf|args|forget_data|chan_ops)",
    },
    Version {
        major: 3,
        header: "fuse3/fuse_lowlevel.h",
        pkg_config: "fuse3",
        packages: "`apt-get install libfuse3-dev` or `yum install fuse3-devel`",
        library: "Fuse3",
        functions: "fuse_(pkgversion|reply_(err|none|buf|iov)|req_(ctx|userdata|interrupt_func)|opt_free_args|\
                    session_(new|mount|unmount|fd|process_buf|exit|destroy|custom_io|custom_io_317|set_sync_init|loop_mt)|\
                    loop_cfg_(create|destroy|set_max_threads|set_idle_threads))",
        types: "fuse_(lowlevel_ops|file_info|ctx|buf|args|forget_data|custom_io_base)",
    },
];

fn main() {
    println!("cargo::rerun-if-changed={WRAPPER}");
    println!("cargo::rerun-if-env-changed=C_INCLUDE_PATH");
    for version in &VERSIONS {
        match include_dirs(version) {
            Some(dirs) => bind(version, &dirs),
            // Cargo shows this as the error of the build and goes on to the other version's.
            None => println!("cargo::error={} not found: {}", version.header, version.packages),
        }
    }
}

/// What to add to the compiler's search path to find the header, or none if it is nowhere.
fn include_dirs(version: &Version) -> Option<Vec<PathBuf>> {
    let from_environment = env::var_os("C_INCLUDE_PATH").unwrap_or_default();
    let standard = ["/usr/include", "/usr/local/include"].map(PathBuf::from);
    let known = env::split_paths(&from_environment).chain(standard);
    // pkg-config names the directory of the header itself; ours includes it with that directory's name.
    let asked = pkg_config(version.pkg_config).into_iter().filter_map(|dir| dir.parent().map(Path::to_owned));
    known.chain(asked).find(|dir| dir.join(version.header).is_file()).map(|dir| vec![dir])
}

fn pkg_config(package: &str) -> Vec<PathBuf> {
    let asked =
        Command::new("pkg-config").args(["--cflags-only-I", "--keep-system-cflags", package]).output();
    let Ok(answer) = asked else { return Vec::new() };
    let flags = String::from_utf8_lossy(&answer.stdout).into_owned();
    flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-I")).map(PathBuf::from).collect()
}

fn bind(version: &Version, include_dirs: &[PathBuf]) {
    let bindings = Builder::default()
        .header(WRAPPER)
        .clang_arg(format!("-DLIBFUSE={}", version.major))
        .clang_arg("-D_FILE_OFFSET_BITS=64")
        .clang_args(include_dirs.iter().map(|dir| format!("-I{}", dir.display())))
        .dynamic_library_name(version.library)
        // A symbol that this library lacks must not keep the others from being used.
        .dynamic_link_require_all(false)
        .allowlist_function(version.functions)
        .allowlist_type(version.types)
        // The C library's types come from the libc crate, the same in both modules.
        .blocklist_type("stat|statvfs|flock|iovec|timespec|off_t|__off_t|off64_t|__off64_t|mode_t|__mode_t")
        .blocklist_type("dev_t|__dev_t|uid_t|__uid_t|gid_t|__gid_t|pid_t|__pid_t|ssize_t|__ssize_t")
        .raw_line("use libc::{dev_t, flock, gid_t, iovec, mode_t, off_t, pid_t, stat, uid_t};")
        .raw_line(if version.major == 3 { "use libc::ssize_t;" } else { "" })
        .default_enum_style(EnumVariation::Consts)
        .derive_default(true)
        .generate_comments(false)
        .wrap_unsafe_ops(true)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .generate();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"))
        .join(format!("fuse{}.rs", version.major));
    match bindings {
        Ok(bindings) => bindings.write_to_file(&out).expect("cargo's output directory can be written"),
        Err(err) => println!("cargo::error=cannot bind {}: {err}", version.header),
    }
}
