//! The low-level interface of libfuse 2 and libfuse 3, side by side in one program and opened at run time.
//!
//! [`fuse2`] and [`fuse3`] are made from the headers by `build.rs`; what `../wrapper.h` and the lists there
//! leave out is left out on purpose, as its shape differs between versions of one library. Written by hand
//! is only the [opening](open) of the library.

mod open;

pub use open::Choice;
pub use open::Library;
pub use open::OpenError;
pub use open::Opened;
pub use open::Version;
pub use open::open;

macro_rules! generated {
    ($($(#[$doc:meta])* $module:ident, $file:literal;)*) => {$(
        $(#[$doc])*
        #[allow(
            missing_docs,
            non_camel_case_types,
            non_upper_case_globals,
            unused_imports,
            unused_qualifications,
            unreachable_pub,
            clippy::all,
            clippy::cast_lossless,
            clippy::undocumented_unsafe_blocks,
            clippy::semicolon_if_nothing_returned,
            reason = "made by bindgen"
        )]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), $file));
        }
    )*};
}

generated! {
    /// libfuse 2, from 2.9.3 on.
    fuse2, "/fuse2.rs";
    /// libfuse 3, from 3.2.6 on.
    fuse3, "/fuse3.rs";
}
