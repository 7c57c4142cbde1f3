//! The keys of each section: those that this version acts on, and those that Teleport knows and this version refuses by name.

/// The keys of one section.
pub(super) struct Keys {
    pub supported: &'static [&'static str],
    /// Refused as "known but not supported", so that a file carried over from Teleport loses nothing in silence.
    pub not_yet: &'static [&'static str],
    /// Sections of services that Postern does not have; they may say `enabled: no`.
    pub foreign: &'static [&'static str],
}

/// Services of Teleport that Postern does not have.
pub(super) const FOREIGN_SERVICES: &[&str] = &[
    "app_service",
    "debug_service",
    "discovery_service",
    "jamf_service",
    "kubernetes_service",
    "metrics_service",
    "okta_service",
    "relay_service",
    "ssh_service",
    "tracing_service",
    "windows_desktop_service",
];

pub(super) const FILE: Keys = Keys {
    supported: &[
        "version",
        "teleport",
        "postern",
        "auth_service",
        "proxy_service",
        "db_service",
    ],
    not_yet: &[],
    foreign: FOREIGN_SERVICES,
};

pub(super) const FOREIGN_SERVICE: Keys = Keys {
    supported: &["enabled"],
    not_yet: &[],
    foreign: &[],
};

pub(super) const PROCESS: Keys = Keys {
    supported: &[
        "auth_server",
        "auth_servers",
        "auth_token",
        "ca_pin",
        "data_dir",
        "diag_addr",
        "log",
        "nodename",
        "pid_file",
        "proxy_server",
        "shutdown_grace",
        "worker_threads",
    ],
    not_yet: &[
        "advertise_ip",
        "ca_signature_algo",
        "cache",
        "ciphers",
        "ciphersuites",
        "connection_limits",
        "join_params",
        "kex_algos",
        "keys",
        "mac_algos",
        "max_connections",
        "storage",
    ],
    foreign: &[],
};

pub(super) const LOG: Keys = Keys {
    supported: &["format", "output", "severity"],
    not_yet: &[],
    foreign: &[],
};

pub(super) const LOG_FORMAT: Keys = Keys {
    supported: &["output"],
    not_yet: &["extra_fields"],
    foreign: &[],
};

pub(super) const AUTH: Keys = Keys {
    supported: &["cluster_name", "enabled", "listen_addr", "policy_max_age", "tokens"],
    not_yet: &[
        "access_monitoring",
        "authentication",
        "ca_key_params",
        "case_insensitive_routing",
        "client_idle_timeout",
        "client_idle_timeout_message",
        "disconnect_expired_cert",
        "dynamic_config",
        "keep_alive_count_max",
        "keep_alive_interval",
        "license_file",
        "load_all_cas",
        "message_of_the_day",
        "oidc_connectors",
        "proxy_listener_mode",
        "proxy_protocol",
        "public_addr",
        "routing_strategy",
        "session_control_timeout",
        "session_recording",
        "ssh_dial_timeout",
        "trusted_clusters",
        "tunnel_strategy",
        "web_idle_timeout",
    ],
    foreign: &[],
};

pub(super) const PROXY: Keys = Keys {
    supported: &[
        "acme",
        "cancel_without_tls",
        "enabled",
        "https_keypairs",
        "proxy_protocol",
        "proxy_protocol_from",
        "public_addr",
        "web_listen_addr",
    ],
    not_yet: &[
        "automatic_upgrades_channels",
        "https_cert_file",
        "https_key_file",
        "https_keypairs_reload_interval",
        "idp",
        "kube_listen_addr",
        "kube_public_addr",
        "kubernetes",
        "listen_addr",
        "mongo_listen_addr",
        "mongo_public_addr",
        "mysql_listen_addr",
        "mysql_public_addr",
        "mysql_server_version",
        "peer_listen_addr",
        "peer_public_addr",
        "postgres_listen_addr",
        "postgres_public_addr",
        "ssh_public_addr",
        "trust_x_forwarded_for",
        "tunnel_listen_addr",
        "tunnel_public_addr",
        "ui",
    ],
    foreign: &[],
};

pub(super) const KEYPAIR: Keys = Keys {
    supported: &["cert_file", "key_file"],
    not_yet: &[],
    foreign: &[],
};

pub(super) const ACME: Keys = Keys {
    supported: &["email", "enabled", "uri"],
    not_yet: &[],
    foreign: &[],
};

pub(super) const DB: Keys = Keys {
    supported: &["databases", "enabled", "resources"],
    not_yet: &["aws", "azure", "gcp"],
    foreign: &[],
};

pub(super) const RESOURCE_MATCHER: Keys = Keys {
    supported: &["labels"],
    not_yet: &["aws", "azure", "gcp"],
    foreign: &[],
};

pub(super) const DATABASE: Keys = Keys {
    supported: &[
        "description",
        "dynamic_labels",
        "name",
        "protocol",
        "server_certificate",
        "static_labels",
        "tls",
        "uri",
    ],
    not_yet: &[
        "ad",
        "admin_user",
        "aws",
        "azure",
        "ca_cert_file",
        "gcp",
        "mongo_atlas",
        "mysql",
        "oracle",
    ],
    foreign: &[],
};

pub(super) const DYNAMIC_LABEL: Keys = Keys {
    supported: &["command", "name", "period"],
    not_yet: &[],
    foreign: &[],
};

pub(super) const SERVER_CERTIFICATE: Keys = Keys {
    supported: &["hosts", "out", "owner", "reload_command", "ttl"],
    not_yet: &[],
    foreign: &[],
};

pub(super) const DATABASE_TLS: Keys = Keys {
    supported: &["ca_cert_file", "mode", "server_name"],
    not_yet: &["trust_system_cert_pool"],
    foreign: &[],
};

/// Sections in which a misplaced key may belong, by the name that the file gives them.
const SECTIONS: &[(&str, &Keys)] = &[
    ("the file", &FILE),
    ("teleport", &PROCESS),
    ("auth_service", &AUTH),
    ("proxy_service", &PROXY),
    ("db_service", &DB),
    ("an entry of databases", &DATABASE),
];

/// More slips of the fingers than this make another word, and a wrong guess misleads.
const MAX_TYPING_ERRORS: usize = 3;

/// What to do about an unknown key: the nearest known one, the section that it belongs to, or all that there are.
pub(super) fn advice(unknown: &str, keys: &Keys) -> String {
    // A long "key" is not a slip of the fingers, and comparing costs its length squared.
    const LONGEST_KEY: usize = 64;
    let allowed = MAX_TYPING_ERRORS.min(unknown.len() / 3);
    let nearest = [keys.supported, keys.not_yet, keys.foreign]
        .into_iter()
        .flatten()
        .filter(|_| unknown.len() <= LONGEST_KEY)
        .map(|known| (strsim::damerau_levenshtein(&unknown.to_lowercase(), known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min();
    if let Some((_, known)) = nearest {
        return format!("did you mean {known:?}?");
    }
    let home = SECTIONS.iter().find(|(_, other)| other.supported.contains(&unknown));
    if let Some((section, _)) = home {
        return format!("it belongs into {section}");
    }
    format!("known are {}", keys.supported.join(", "))
}
