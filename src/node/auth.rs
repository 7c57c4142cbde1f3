//! The auth service of a node.

use super::observed_store::ObservedStore;
use super::roots::Roots;
use super::{AuthAddresses, Common, DataDir, Identity, StartError};
use crate::actors::accounts::{AccountParts, Accounts};
use crate::actors::address::{Address, TellError};
use crate::actors::audit_log::AuditLogKeeper;
use crate::actors::ca::{Authorities, Ca, HOST_TTL};
use crate::actors::connection::{AuthParts, ConnectionParts};
use crate::actors::door::Door;
use crate::actors::host::Spec;
use crate::actors::inventory::{HEARTBEAT_EVERY, Inventory, InventoryStock, InventoryView, NodeHeard, NodeRecord};
use crate::actors::joins::Joins;
use crate::actors::links::{LinkParts, Links};
use crate::actors::node_questions::LinkedNodes;
use crate::actors::policy::{PolicyConfirmed, PolicyReceived};
use crate::actors::rbac::{Published, Rbac};
use crate::actors::strangers::Strangers;
use crate::actors::tokens::{StaticToken, Tokens};
use crate::audit::AuditLog;
use crate::config::ProxyProtocol;
use crate::config::{AuthConfig, Config};
use crate::model::{ClusterName, NodeId, NodeKind, SharedClock, Timestamp};
use crate::net::tls::Http;
use crate::pki::{CaKind, CertificateAuthority, HostName, HostProfile, PrivateKey, SealKey, entropy};
use crate::policy::{Resource, presets};
use crate::store::{SqliteStore, Store, StoreError};
use crate::web::admin::{Admin, AdminParts, AdminPort, OwnLooks};
use crate::web::people::PeopleApi;
use futures::FutureExt as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// What auth has opened before anything else starts.
pub(super) struct Keys {
    store: Arc<dyn Store>,
    /// Why a thread of the store cannot be relied upon any more.
    pub exhausted: watch::Receiver<Option<String>>,
    seal: Arc<SealKey>,
    authorities: Arc<Authorities>,
    node: NodeId,
}

pub(super) struct Auth {
    pub listening: SocketAddr,
    pub addresses: AuthAddresses,
}

const NODE_ID: &str = "/auth/node-id";
/// How often the policy actor beside auth hears that its rules are the newest.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);

/// Opens the store and the authorities, which are made on the first start. `None` where auth does not run here.
pub(super) async fn open_keys(
    config: &Config,
    data_dir: &DataDir,
    clock: &SharedClock,
) -> Result<Option<Keys>, StartError> {
    let Some(auth) = &config.auth else {
        return Ok(None);
    };
    let store = SqliteStore::open(&data_dir.store(), clock.clone())?;
    let exhausted = store.watch_exhausted();
    let store: Arc<dyn Store> = Arc::new(ObservedStore(store));
    let seal = SealKey::load_or_create(&data_dir.seal_key())?;
    let now = clock.now();
    let open = |kind| authority(store.as_ref(), &seal, kind, &auth.cluster_name, now);
    let authorities = Authorities {
        user: open(CaKind::User).await?,
        host: open(CaKind::Host).await?,
        db: open(CaKind::Db).await?,
        db_client: open(CaKind::DbClient).await?,
    };
    if authorities.host.cluster() != &auth.cluster_name {
        return Err(StartError::Other(format!(
            "cluster_name is {:?} in the configuration, but this data directory belongs to cluster {:?}; the name cannot be \
             changed after the first start",
            auth.cluster_name,
            authorities.host.cluster()
        )));
    }
    let node = node_id(store.as_ref()).await?;
    add_presets(store.as_ref()).await?;
    Ok(Some(Keys {
        store,
        exhausted,
        seal: Arc::new(seal),
        authorities: Arc::new(authorities),
        node,
    }))
}

async fn authority(
    store: &dyn Store,
    seal: &SealKey,
    kind: CaKind,
    cluster: &ClusterName,
    now: Timestamp,
) -> Result<CertificateAuthority, StartError> {
    let key = format!("/ca/{}", kind.label());
    if let Some(item) = store.get(&key).await? {
        return Ok(CertificateAuthority::from_record(&item.value, seal)?);
    }
    let authority = CertificateAuthority::generate(kind, cluster, now)?;
    store.create(&key, authority.to_record(seal)?, None).await?;
    tracing::info!(authority = kind.label(), "certificate authority made");
    Ok(authority)
}

async fn node_id(store: &dyn Store) -> Result<NodeId, StartError> {
    if let Some(item) = store.get(NODE_ID).await? {
        return String::from_utf8_lossy(&item.value)
            .parse()
            .map_err(|error| StartError::Other(format!("{NODE_ID} in the store is damaged: {error}")));
    }
    let node = NodeId::from_random(entropy::bytes());
    store.create(NODE_ID, node.to_string().into_bytes(), None).await?;
    Ok(node)
}

/// The roles that every cluster has at first. Each is added once: one that was changed or removed since stays so, and one that
/// a newer version brings is added when that version first starts.
async fn add_presets(store: &dyn Store) -> Result<(), StartError> {
    /// Followed by the name of a preset that was added.
    const ADDED: &str = "/role-presets/";
    /// As one marker, for the presets of the first versions.
    const FIRST_ADDED: &str = "/role-presets";
    const FIRST: [&str; 3] = ["access", "editor", "auditor"];
    let first_added = store.get(FIRST_ADDED).await?.is_some();
    for role in presets()? {
        let resource = Resource::Role(role);
        let marker = format!("{ADDED}{}", resource.name());
        if (first_added && FIRST.contains(&resource.name())) || store.get(&marker).await?.is_some() {
            continue;
        }
        let key = format!("/role/{}", resource.name());
        match store.create(&key, resource.to_json().into_bytes(), None).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        store.put(&marker, Vec::new(), None).await?;
    }
    Ok(())
}

impl Keys {
    /// Auth issues its own host certificate, for all services of the process, at every start.
    pub fn own_identity(&self, config: &Config, data_dir: &DataDir, now: Timestamp) -> Result<Identity, StartError> {
        let key = PrivateKey::generate()?;
        let names = super::proxy::host_names(config);
        let profile = HostProfile {
            node_id: self.node,
            node_name: config.nodename.clone(),
            kinds: config.services(),
            names: names.iter().map(|name| HostName::new(name)).collect::<Result<_, _>>()?,
        };
        let leaf = self
            .authorities
            .host
            .issue_host(&profile, &key.public_key(), now + HOST_TTL, now)?;
        let identity = Identity::new(leaf, key, self.authorities.anchors(), now).map_err(|error| {
            StartError::Other(format!(
                "the certificate that auth issued for itself is not usable: {error}"
            ))
        })?;
        identity.save(&data_dir.identity())?;
        Ok(identity)
    }
}

pub(super) async fn start(
    common: &Arc<Common>,
    keys: Keys,
    data_dir: &DataDir,
    roots: &mut Roots,
    (received, confirmed): (Address<PolicyReceived>, Address<PolicyConfirmed>),
) -> Result<Auth, StartError> {
    let Some(config) = &common.config.auth else {
        return Err(StartError::Other("the auth service is not configured".to_owned()));
    };
    let (socket, listening) = super::proxy::listen(&config.listen_addr, NodeKind::Auth.label())?;
    let log = Arc::new(Mutex::new(AuditLog::open(&data_dir.log())?));
    let audit_log = roots.start(Spec::permanent("audit-log"), move || AuditLogKeeper::new(log.clone()));
    let published = Published::default();
    let rbac = {
        let (store, common, published) = (keys.store.clone(), common.clone(), published.clone());
        roots.start(Spec::permanent("rbac"), move || {
            Rbac::new(
                store.clone(),
                common.trail.clone(),
                common.clock.clone(),
                published.clone(),
            )
        })
    };
    let nodes = InventoryStock::default();
    let inventory_view = nodes.view(common.clock.clone());
    let inventory = {
        let clock = common.clock.clone();
        roots.start(Spec::permanent("inventory"), move || {
            Inventory::new(nodes.clone(), clock.clone())
        })
    };
    let ca = {
        let (authorities, common, inventory) = (keys.authorities.clone(), common.clone(), inventory_view.clone());
        let published = published.clone();
        roots.start(Spec::permanent("ca"), move || {
            Ca::new(
                authorities.clone(),
                published.clone(),
                inventory.clone(),
                common.trail.clone(),
                common.clock.clone(),
            )
        })
    };
    let tokens = {
        let (configured, store, clock) = (
            Arc::new(configured_tokens(config)?),
            keys.store.clone(),
            common.clock.clone(),
        );
        roots.start(Spec::permanent("tokens"), move || {
            Tokens::new(configured.clone(), store.clone(), clock.clone())
        })
    };
    let accounts = {
        let parts = AccountParts {
            cluster: common.identity.cluster.clone(),
            store: keys.store.clone(),
            seal: keys.seal.clone(),
            published: published.clone(),
            trail: common.trail.clone(),
            clock: common.clock.clone(),
        };
        roots.start(Spec::permanent("accounts"), move || Accounts::new(parts.clone()))
    };
    let joins = {
        let (take, give_back) = (tokens.address(), tokens.address());
        let (issue, common) = (ca.address(), common.clone());
        roots.start(Spec::permanent("joins"), move || {
            let anchors = common.identity.anchors.clone();
            Joins::new(
                (take.clone(), give_back.clone()),
                issue.clone(),
                common.identity.cluster.clone(),
                anchors,
                common.trail.clone(),
            )
        })
    };
    let linked = LinkedNodes::default();
    let links = {
        let parts = Arc::new(LinkParts {
            issue: ca.address(),
            renew: ca.address(),
            issue_db_server: ca.address(),
            store_lines: audit_log.address(),
            heard: inventory.address(),
            look_at: accounts.address(),
            accept: accounts.address(),
            inventory: inventory_view.clone(),
            published: published.clone(),
            policy_max_age: config.policy_max_age,
            policy: common.policy.clone(),
            trail: common.trail.clone(),
            linked: linked.clone(),
        });
        let numbers = Arc::default();
        roots.start(Spec::permanent("links"), move || {
            Links::new(parts.clone(), Arc::clone(&numbers))
        })
    };
    let admin = Arc::new(AdminParts {
        cluster: common.identity.cluster.clone(),
        anchors: common.identity.anchors.clone(),
        clock: common.clock.clone(),
        trail: common.trail.clone(),
        published: published.clone(),
        inventory: inventory_view.clone(),
        put: rbac.address(),
        remove: rbac.address(),
        remove_node: rbac.address(),
        forget_node: inventory.address(),
        issue_person: ca.address(),
        issue_db_server: ca.address(),
        query: audit_log.address(),
        add_token: tokens.address(),
        list_tokens: tokens.address(),
        remove_token: tokens.address(),
        create_invite: accounts.address(),
        forget_account: accounts.address(),
        log_in: accounts.address(),
        linked,
        inspector: common.inspector.clone(),
        own_looks: OwnLooks::default(),
    });
    let parts = Arc::new(ConnectionParts {
        cluster: common.identity.cluster.clone(),
        identity: common.in_use.clone(),
        policy: common.policy.clone(),
        clock: common.clock.clone(),
        trail: common.trail.clone(),
        door: Door {
            identity: common.in_use.clone(),
            http: Http::OneText,
            proxy_protocol: ProxyProtocol::Off,
            strangers: Strangers::new(common.trail.clone()),
        },
        proxy: None,
        auth: Some(AuthParts {
            adopt_link: links.address(),
            join: joins.address(),
            people: Arc::new(PeopleApi::new(admin.clone())),
        }),
    });
    super::proxy::start_listener(common, roots, "auth-listener", socket, parts);
    follow_locally(roots, published.clone(), config.policy_max_age, received, confirmed);
    heartbeat_locally(roots, common, inventory.address(), inventory_view);
    start_admin(roots, data_dir, admin)?;
    first_policy(common).await?;
    tracing::info!(%listening, "auth listens");
    Ok(Auth {
        listening,
        addresses: AuthAddresses {
            issue: ca.address(),
            store_lines: audit_log.address(),
            issue_host: ca.address(),
            issue_db_server: ca.address(),
            look_at: accounts.address(),
            accept: accounts.address(),
        },
    })
}

fn start_admin(roots: &mut Roots, data_dir: &DataDir, parts: Arc<AdminParts>) -> Result<(), StartError> {
    let path = data_dir.admin_socket();
    let socket = crate::net::socket::OwnersSocket::bind(&path)
        .and_then(|socket| socket.listen())
        .map_err(|error| StartError::Listen(format!("the administrator's socket {}: {error}", path.display())))?;
    let port = Arc::new(AdminPort::new(socket));
    roots.start(Spec::permanent("admin"), move || {
        Admin::new(port.clone(), parts.clone())
    });
    Ok(())
}

/// The services of this process decide from the first snapshot on, so they do not start before it is there.
async fn first_policy(common: &Common) -> Result<(), StartError> {
    const DEADLINE: Duration = Duration::from_secs(15);
    let mut policy = common.policy.clone();
    match tokio::time::timeout(DEADLINE, policy.changed()).await {
        Ok(Some(_)) => Ok(()),
        _ if policy.version().is_some() => Ok(()),
        _ => Err(StartError::Other(
            "the users and roles could not be read from the store; the log says why".to_owned(),
        )),
    }
}

fn configured_tokens(config: &AuthConfig) -> Result<Vec<StaticToken>, StartError> {
    config
        .tokens
        .iter()
        .map(|token| {
            Ok(StaticToken {
                kinds: token.kinds.clone(),
                secret: token.read()?,
            })
        })
        .collect()
}

/// The policy actor of auth's own process hears what links tell the others.
fn follow_locally(
    roots: &mut Roots,
    published: Published,
    max_age: Duration,
    received: Address<PolicyReceived>,
    confirmed: Address<PolicyConfirmed>,
) {
    roots.follow("own-policy", move |origin| {
        let (mut published, received, confirmed) = (published.subscribe(), received.clone(), confirmed.clone());
        async move {
            loop {
                let newest = published.borrow_and_update().clone();
                if let Some(snapshot) = newest {
                    let version = snapshot.version;
                    let told = received
                        .tell_when_room(&origin, PolicyReceived { snapshot, max_age })
                        .await;
                    let told = told.and(confirmed.tell(&origin, PolicyConfirmed(version)));
                    if told == Err(TellError::Closed) {
                        return;
                    }
                }
                let _news = tokio::time::timeout(CONFIRM_EVERY, published.changed()).await;
            }
        }
        .boxed_local()
    });
}

/// What this process's own services would tell auth over a link, and hear from it.
fn heartbeat_locally(roots: &mut Roots, common: &Arc<Common>, heard: Address<NodeHeard>, inventory: InventoryView) {
    let common = common.clone();
    roots.follow("own-heartbeat", move |origin| {
        let (common, heard, inventory) = (common.clone(), heard.clone(), inventory.clone());
        async move {
            let mut report = common.report.subscribe();
            let link = Arc::new(());
            loop {
                let record = NodeRecord {
                    node: common.identity.node,
                    name: common.identity.name.clone(),
                    kinds: common.config.services(),
                    report: report.borrow_and_update().clone(),
                };
                let beat = NodeHeard {
                    record,
                    link: Arc::downgrade(&link),
                };
                if heard.tell_when_room(&origin, beat).await.is_err() {
                    return;
                }
                common.proxies.heard(inventory.proxies());
                if let Ok(Err(_no_more_news)) = tokio::time::timeout(HEARTBEAT_EVERY, report.changed()).await {
                    tokio::time::sleep(HEARTBEAT_EVERY).await;
                }
            }
        }
        .boxed_local()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemClock;

    #[tokio::test]
    async fn a_preset_role_is_added_once_and_stays_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&dir.path().join("state.sqlite"), SystemClock::shared()).expect("a store");
        add_presets(store.as_ref()).await.expect("added");
        store.delete("/role/access").await.expect("removed");
        add_presets(store.as_ref()).await.expect("again");
        assert!(store.get("/role/access").await.expect("read").is_none());
        // As a version would find it that brings `auditor`.
        store.delete("/role/auditor").await.expect("removed");
        store.delete("/role-presets/auditor").await.expect("removed");
        add_presets(store.as_ref()).await.expect("again");
        assert!(store.get("/role/auditor").await.expect("read").is_some());
    }

    #[tokio::test]
    async fn a_store_of_an_earlier_version_keeps_its_presets_as_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&dir.path().join("state.sqlite"), SystemClock::shared()).expect("a store");
        store.put("/role-presets", Vec::new(), None).await.expect("marked");
        add_presets(store.as_ref()).await.expect("nothing to add");
        assert!(store.get("/role/access").await.expect("read").is_none());
    }
}
