//! What whole-server and database tests share.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

pub mod balancer;
pub mod chatters;
pub mod databases;
pub mod network;
pub mod nodes;
pub mod people;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod server;
pub mod smtp;
pub mod sounds;
pub mod talkers;
