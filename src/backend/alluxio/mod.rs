//! alluxio
