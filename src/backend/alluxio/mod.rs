//! temp
#![allow(dead_code)]
mod abort_codec;
mod budget;
mod layout;
mod window;
