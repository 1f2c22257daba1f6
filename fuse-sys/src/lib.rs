//! Bindings of libfuse 2 and 3.
