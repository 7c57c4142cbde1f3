//! What libpq's connection strings have to choose from, with the newest libpq there is: psycopg's. The functions are in `functions_of_psycopg.py`.

use super::psycopg::function;
use super::rows;
use crate::harness::Cluster;

rows! {
    direct_tls: "`sslnegotiation=direct`" => "works, its cancel requests too",
    protocol_3_2: "`max_protocol_version=3.2` or `latest`" => "works: 3.2, with a cancel key of 32 bytes, by which requests with and without TLS are carried out",
    at_least_3_2: "`min_protocol_version=3.2`" => "works",
    tls_1_2: "TLS 1.2, TLS 1.3" => "works",
    gss_first: "`gssencmode=prefer`" => "works: Postern says no to GSS, libpq goes on with TLS",
    plain: "`sslmode=disable`" => "refused in words: Postern takes TLS only",
    channel_binding: "`channel_binding=require`" => "libpq refuses, as no password is asked for; `prefer` and `require_auth=none` work",
    session_attributes: "`target_session_attrs`" => "works",
    several_hosts: "several hosts" => "works: of several proxies the next is tried",
    start_parameters: "`application_name`, `client_encoding`" => "works; settings that are not carried are refused by name",
    options: "`options`, `PGOPTIONS`" => "works for settings that are carried; others, and server flags, are refused by name",
    replication: "`replication=database`" => "refused in words without a role that has `db_replication`",
}

macro_rules! functions {
    ($($name:ident)*) => { $(fn $name(_: &Cluster) { function(stringify!($name)); })* };
}

functions! {
    direct_tls protocol_3_2 at_least_3_2 tls_1_2 gss_first plain channel_binding session_attributes several_hosts start_parameters options replication
}
