//! The documents whose examples are compiled and run.

#[doc = include_str!("../../README.md")]
struct Readme;

#[doc = include_str!("../../docs/architecture.md")]
struct Architecture;

#[doc = include_str!("../../docs/endpoints.md")]
struct Endpoints;

#[doc = include_str!("../../docs/receive.md")]
struct Receive;

#[doc = include_str!("../../docs/operations.md")]
struct Operations;

#[doc = include_str!("../../docs/service.md")]
struct Service;
