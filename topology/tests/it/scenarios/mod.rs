//! One file a scenario; each is run on both backbones, or on one if it has nothing to do with them.

pub mod access_keys;
pub mod backup_and_restore;
pub mod bad_input;
mod bad_queries;
pub mod broker_down;
pub mod browser_client;
pub mod clickhouse_away;
pub mod clickhouse_users;
pub mod clients;
pub mod demo_data;
pub mod failed_writes;
pub mod forgetful_broker;
pub mod graceful_shutdown;
pub mod hostile_connections;
pub mod kafka_clients;
pub mod kill_nine;
pub mod late_events;
pub mod live_push;
mod live_socket;
pub mod new_definition;
pub mod openapi_contract;
pub mod operator_commands;
pub mod retries_count_once;
pub mod rolling_restart;
pub mod scale_out_and_in;
pub mod sdk_clients;
pub mod watching;
