//! Alluxio's messages and clients, as `build.rs` makes them from `proto/`. Knows nothing else.

/// The generated modules, nested like Alluxio's packages.
mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        dead_code,
        clippy::all,
        clippy::cast_lossless,
        clippy::semicolon_if_nothing_returned,
        reason = "generated code has its own style, and messages have fields that only servers read"
    )]

    include!(concat!(env!("OUT_DIR"), "/alluxio.rs"));
}

pub(super) use generated::alluxio::grpc;
pub(super) use generated::alluxio::proto::dataserver;
