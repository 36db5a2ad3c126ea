//! Every metric that `GET /metrics` has: name, type, help and labels. The exporter tells no other, and docs/metrics.md,
//! the dashboard and the alert rules name no other: tests compare them.
//!
//! Names are Prometheus's by its conventions: base units, and `_total` behind what only grows.

/// What a metric's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the director is loaded anew or its counters are zeroed.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// Prometheus's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric, whose samples have `N` labels each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric<const N: usize> {
    /// Its name; of a counter it ends in `_total`.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: [&'static str; N],
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric<{ <[&str]>::len(&[$($label),*]) }> =
                Metric { name: $name, kind: Kind::$kind, help: $help, labels: [$($label),*] };
        )*
        /// All of them, in the order in which they are told.
        pub const ALL: &[Row] =
            &[$(Row { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*] }),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "dirigent_build_info" ["version", "director"]
        "Always 1: the program's version, and the director's name.";
    CONNECTIONS: Counter "dirigent_connections_total" []
        "Connections scheduled, those of services that are gone too.";
    INCOMING_PACKETS: Counter "dirigent_incoming_packets_total" []
        "Packets towards servers.";
    INCOMING_BYTES: Counter "dirigent_incoming_bytes_total" []
        "Bytes towards servers, from the IP header on.";
    OUTGOING_PACKETS: Counter "dirigent_outgoing_packets_total" []
        "Packets towards clients, where they come back through the director.";
    OUTGOING_BYTES: Counter "dirigent_outgoing_bytes_total" []
        "Bytes towards clients, from the IP header on.";
    PACKETS_FORWARDED: Counter "dirigent_packets_forwarded_total" ["reason"]
        "Packets that were sent on, by verdict.";
    PACKETS_PASSED: Counter "dirigent_packets_passed_total" ["reason"]
        "Packets that were left to this host, by verdict.";
    PACKETS_ANSWERED: Counter "dirigent_packets_answered_total" ["reason"]
        "Packets that were answered with an error, by verdict.";
    PACKETS_DROPPED: Counter "dirigent_packets_dropped_total" ["reason"]
        "Packets that were dropped, by verdict.";
    INTERFACE_ATTACHED: Gauge "dirigent_interface_attached" ["interface", "path"]
        "Always 1: the packet path is on this interface, by XDP or tc.";
    TABLE_ENTRIES: Gauge "dirigent_connection_table_entries" ["family"]
        "Entries in use: of a NAT connection two, of another and of a persistence template one.";
    TABLE_ENTRIES_LIMIT: Gauge "dirigent_connection_table_entries_limit" ["family"]
        "Entries that there is room for.";
    TABLE_BYTES: Gauge "dirigent_connection_table_bytes" []
        "Kernel memory of the connection tables of both families.";
    SERVICES: Gauge "dirigent_services" []
        "Virtual services.";
    SERVICES_LIMIT: Gauge "dirigent_services_limit" []
        "Virtual services that there is room for.";
    SERVERS: Gauge "dirigent_servers" []
        "Real servers, each counted in every service that it is in.";
    SERVERS_LIMIT: Gauge "dirigent_servers_limit" []
        "Real servers that there is room for.";
    CONFIG_GENERATION: Gauge "dirigent_config_generation" []
        "Generation of the configuration: goes up by one with each change.";
    CONFIG_RUNTIME_CHANGES: Gauge "dirigent_config_runtime_changes" []
        "Differences between what is configured and what the file says.";
    CONFIG_RELOAD_SUCCESSFUL: Gauge "dirigent_config_last_reload_successful" []
        "Whether the configuration file was taken when it was read last.";
    CONFIG_RELOAD_TIME: Gauge "dirigent_config_last_reload_success_timestamp_seconds" []
        "When the configuration file was last read and taken.";
    SUSPECTED: Gauge "dirigent_suspected" ["service", "server", "cause"]
        "1 while connections or other hosts show that something is wrong, which nobody asked about.";
    SERVICE_INFO: Gauge "dirigent_service_info" ["service", "protocol", "scheduler"]
        "Always 1: how a virtual service is configured.";
    SERVICE_QUORUM: Gauge "dirigent_service_quorum" ["service"]
        "Whether a virtual service has its quorum of servers that pass their checks; absent where nothing is checked.";
    SERVICE_CONNECTIONS: Counter "dirigent_service_connections_total" ["service"]
        "Connections of a virtual service.";
    SERVICE_INCOMING_PACKETS: Counter "dirigent_service_incoming_packets_total" ["service"]
        "Packets of a virtual service towards servers.";
    SERVICE_INCOMING_BYTES: Counter "dirigent_service_incoming_bytes_total" ["service"]
        "Bytes of a virtual service towards servers.";
    SERVICE_OUTGOING_PACKETS: Counter "dirigent_service_outgoing_packets_total" ["service"]
        "Packets of a virtual service towards clients.";
    SERVICE_OUTGOING_BYTES: Counter "dirigent_service_outgoing_bytes_total" ["service"]
        "Bytes of a virtual service towards clients.";
    SERVER_INFO: Gauge "dirigent_server_info" ["service", "server", "method"]
        "Always 1: how a real server is configured.";
    SERVER_UP: Gauge "dirigent_server_up" ["service", "server"]
        "Whether a real server passes its checks; absent where it has none.";
    SERVER_HEALTH_TIME: Gauge "dirigent_server_health_change_timestamp_seconds" ["service", "server"]
        "When a real server's checks last began to pass or to fail.";
    SERVER_REACHABLE: Gauge "dirigent_server_reachable" ["service", "server"]
        "Whether frames reach a real server: a route and a neighbour are known.";
    SERVER_WEIGHT: Gauge "dirigent_server_weight" ["service", "server"]
        "Weight that a real server is configured with, or that its checks give it.";
    SERVER_EFFECTIVE_WEIGHT: Gauge "dirigent_server_effective_weight" ["service", "server"]
        "Weight by which a real server gets new connections now.";
    SERVER_ACTIVE: Gauge "dirigent_server_active_connections" ["service", "server"]
        "Active connections of a real server.";
    SERVER_INACTIVE: Gauge "dirigent_server_inactive_connections" ["service", "server"]
        "Inactive connections of a real server.";
    SERVER_TEMPLATES: Gauge "dirigent_server_persistence_templates" ["service", "server"]
        "Persistence templates of a real server.";
    SERVER_CONNECTIONS: Counter "dirigent_server_connections_total" ["service", "server"]
        "Connections of a real server.";
    SERVER_INCOMING_PACKETS: Counter "dirigent_server_incoming_packets_total" ["service", "server"]
        "Packets towards a real server.";
    SERVER_INCOMING_BYTES: Counter "dirigent_server_incoming_bytes_total" ["service", "server"]
        "Bytes towards a real server.";
    SERVER_OUTGOING_PACKETS: Counter "dirigent_server_outgoing_packets_total" ["service", "server"]
        "Packets of a real server towards clients.";
    SERVER_OUTGOING_BYTES: Counter "dirigent_server_outgoing_bytes_total" ["service", "server"]
        "Bytes of a real server towards clients.";
    ROUTER_INFO: Gauge "dirigent_virtual_router_info" ["router", "interface", "vrid", "family"]
        "Always 1: how a virtual router is configured.";
    ROUTER_STATE: Gauge "dirigent_virtual_router_state" ["router", "state"]
        "1 for the state that a virtual router is in, 0 for each other.";
    ROUTER_TRANSITIONS: Counter "dirigent_virtual_router_transitions_total" ["router", "state"]
        "Times that a virtual router came into a state, since the daemon began.";
    ROUTER_STATE_TIME: Gauge "dirigent_virtual_router_state_change_timestamp_seconds" ["router"]
        "When a virtual router came into its state.";
    ROUTER_PRIORITY: Gauge "dirigent_virtual_router_priority" ["router"]
        "Priority of a virtual router now.";
    ROUTER_CONTENDED: Gauge "dirigent_virtual_router_contended" ["router"]
        "Whether a virtual router is master and there are signs of another one.";
    ROUTER_CLAIMED: Gauge "dirigent_virtual_router_address_claimed" ["router"]
        "Whether another host says that one of a virtual router's addresses is its own.";
    SYNC_SENT: Counter "dirigent_sync_records_sent_total" []
        "Records of connections that were sent to other directors.";
    SYNC_RECEIVED: Counter "dirigent_sync_records_received_total" []
        "Records of connections that were heard from other directors.";
    SYNC_APPLIED: Counter "dirigent_sync_changes_applied_total" []
        "Changes of the tables by what was heard.";
    SYNC_DROPPED: Counter "dirigent_sync_dropped_total" ["reason"]
        "What was heard from other directors and dropped, by reason.";
    SYNC_PEER_COMPLETE: Gauge "dirigent_sync_peer_complete" ["node"]
        "Whether all connections of another director are known here.";
    SYNC_PEER_CONNECTIONS: Gauge "dirigent_sync_peer_connections" ["node"]
        "Connections and templates that were learned from another director and are there still.";
    SYNC_PEER_EXPECTED: Gauge "dirigent_sync_peer_connections_expected" ["node"]
        "Connections and templates that another director says that it has.";
    SYNC_PEER_LAG: Gauge "dirigent_sync_peer_lag_seconds" ["node"]
        "By how much what is known of another director is older than what it has.";
    SYNC_PEER_SILENCE: Gauge "dirigent_sync_peer_silence_seconds" ["node"]
        "Since when another director was not heard.";
    SYNC_PEER_GAPS: Counter "dirigent_sync_peer_gaps_total" ["node"]
        "Times that messages of another director were missing.";
    SYNC_PEER_REPAIRED: Counter "dirigent_sync_peer_messages_repaired_total" ["node"]
        "Messages of another director that came when they were asked for again.";
    SYNC_PEER_LOST: Counter "dirigent_sync_peer_messages_lost_total" ["node"]
        "Messages of another director that never came.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "CPU time of the daemon, in user space and in the kernel.";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" []
        "File descriptors that the daemon has open.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "File descriptors that the daemon may have open.";
    PROCESS_VIRTUAL_MEMORY: Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the daemon.";
    PROCESS_RESIDENT_MEMORY: Gauge "process_resident_memory_bytes" []
        "Resident memory of the daemon.";
    PROCESS_START_TIME: Gauge "process_start_time_seconds" []
        "When the daemon began, since 1970 (UTC).";
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads of the daemon.";
    IPVS_CONNECTIONS: Counter "node_ipvs_connections_total" []
        "The total number of connections made.";
    IPVS_INCOMING_PACKETS: Counter "node_ipvs_incoming_packets_total" []
        "The total number of incoming packets.";
    IPVS_OUTGOING_PACKETS: Counter "node_ipvs_outgoing_packets_total" []
        "The total number of outgoing packets.";
    IPVS_INCOMING_BYTES: Counter "node_ipvs_incoming_bytes_total" []
        "The total amount of incoming data.";
    IPVS_OUTGOING_BYTES: Counter "node_ipvs_outgoing_bytes_total" []
        "The total amount of outgoing data.";
    IPVS_ACTIVE: Gauge "node_ipvs_backend_connections_active"
        ["local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"]
        "The current active connections by local and remote address.";
    IPVS_INACTIVE: Gauge "node_ipvs_backend_connections_inactive"
        ["local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"]
        "The current inactive connections by local and remote address.";
    IPVS_WEIGHT: Gauge "node_ipvs_backend_weight"
        ["local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"]
        "The current backend weight by local and remote address.";
}
