//! A file system over another one, which does what the upper one has nothing to add to: what shows files otherwise, caches
//! them or counts calls need say only what it does itself.

use std::sync::Arc;

use bytes::Bytes;

use super::Attr;
use super::CreateOptions;
use super::Ctx;
use super::FileReader;
use super::FileSystem;
use super::FileWriter;
use super::FsPath;
use super::Listing;
use super::RenameMode;
use super::Result;
use super::SetAttr;
use super::StatFs;
use super::XattrMode;

macro_rules! layer {
    ($(fn $call:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        /// A file system over [`below`](Self::below). Its calls are those of [`FileSystem`], which each layer is.
        pub trait Layer: Send + Sync {
            /// What is below.
            fn below(&self) -> &dyn FileSystem;

            $(
                #[doc = concat!("As [`FileSystem::", stringify!($call), "`].")]
                fn $call(&self, $($name: $kind),*) -> $answer {
                    self.below().$call($($name),*)
                }
            )*
        }

        impl<T: Layer> FileSystem for T {
            $(
                fn $call(&self, $($name: $kind),*) -> $answer {
                    Layer::$call(self, $($name),*)
                }
            )*
        }
    };
}

layer! {
    fn stat(ctx: &Ctx, path: &FsPath) -> Result<Attr>;
    fn fresh_stat(ctx: &Ctx, path: &FsPath) -> Result<Attr>;
    fn list(ctx: &Ctx, path: &FsPath) -> Result<Box<dyn Listing>>;
    fn make_dir(ctx: &Ctx, path: &FsPath, mode: u32) -> Result<Attr>;
    fn create(ctx: &Ctx, path: &FsPath, options: &CreateOptions) -> Result<(Attr, Box<dyn FileWriter>)>;
    fn open(ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>>;
    fn remove_file(ctx: &Ctx, path: &FsPath) -> Result<()>;
    fn remove_seen_file(ctx: &Ctx, path: &FsPath) -> Result<()>;
    fn remove_dir(ctx: &Ctx, path: &FsPath) -> Result<()>;
    fn replace(ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr>;
    fn rename(ctx: &Ctx, from: &FsPath, to: &FsPath, mode: RenameMode) -> Result<()>;
    fn set_attr(ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr>;
    fn xattr(ctx: &Ctx, path: &FsPath, name: &str) -> Result<Bytes>;
    fn xattrs(ctx: &Ctx, path: &FsPath) -> Result<Vec<String>>;
    fn set_xattr(ctx: &Ctx, path: &FsPath, name: &str, value: &[u8], mode: XattrMode) -> Result<()>;
    fn remove_xattr(ctx: &Ctx, path: &FsPath, name: &str) -> Result<()>;
    fn stat_fs(ctx: &Ctx) -> Result<StatFs>;
    fn access(ctx: &Ctx, path: &FsPath, mask: u32) -> Result<()>;
}
