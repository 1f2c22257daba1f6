//! Compiles `proto/` into clients. The compiler is `protox`, so building needs no protoc.

use std::error::Error;

const FILES: [&str; 7] = [
    "alluxio/grpc/block.proto",
    "alluxio/grpc/common.proto",
    "alluxio/grpc/file.proto",
    "alluxio/grpc/meta.proto",
    "alluxio/grpc/metric.proto",
    "alluxio/grpc/sasl.proto",
    "alluxio/grpc/version.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        // Chunks of data stay slices of the received message.
        .bytes(".")
        .include_file("alluxio.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
