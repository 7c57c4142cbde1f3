//! The administrator's socket.
//!
//! **Owns** `admin.sock` in the data directory: whoever may open it (0600) is an administrator of this machine.
//! **Hears** nothing; requests come from the socket.
//! **Tells** the actors of auth what is asked; the audit trail, with the uid of the process that asked.
//! **Never** serves more than `CONNECTIONS_MAX` at a time.
//! **Ends** with the node. Permanent.

use super::permits::Caller;
use super::routes;
pub use super::trace_routes::OwnLooks;
use crate::actors::accounts::{CreateInvite, ForgetAccount, LogIn};
use crate::actors::address::Address;
use crate::actors::audit_log::QueryAudit;
use crate::actors::ca::{IssueDbServer, IssuePerson};
use crate::actors::host::{Behavior, Ctx, spawn_detached};
use crate::actors::inspector::Inspector;
use crate::actors::inventory::{InventoryView, NodeForgotten};
use crate::actors::node_questions::LinkedNodes;
use crate::actors::rbac::{Published, PutResource, RemoveNode, RemoveResource};
use crate::actors::tokens::{AddToken, ListTokens, RemoveToken};
use crate::actors::trail::Trail;
use crate::model::{ClusterName, SharedClock};
use crate::net::socket::{OwnersListener, Unix};
use crate::pki::TrustAnchors;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Administrators and their scripts on one machine.
const CONNECTIONS_MAX: usize = 64;
/// A request that is not done by then is a client that went away without closing.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(120);

/// What the API is made of, for administrators and for people.
pub struct AdminParts {
    pub cluster: ClusterName,
    pub anchors: TrustAnchors,
    pub clock: SharedClock,
    pub trail: Trail,
    pub published: Published,
    pub inventory: InventoryView,
    pub put: Address<PutResource>,
    pub remove: Address<RemoveResource>,
    pub remove_node: Address<RemoveNode>,
    pub forget_node: Address<NodeForgotten>,
    pub issue_person: Address<IssuePerson>,
    pub issue_db_server: Address<IssueDbServer>,
    pub query: Address<QueryAudit>,
    pub add_token: Address<AddToken>,
    pub list_tokens: Address<ListTokens>,
    pub remove_token: Address<RemoveToken>,
    pub create_invite: Address<CreateInvite>,
    pub forget_account: Address<ForgetAccount>,
    pub log_in: Address<LogIn>,
    /// The other nodes, as far as they can be asked about themselves.
    pub linked: LinkedNodes,
    /// This one.
    pub inspector: Inspector,
    /// For people who look at connections of their own.
    pub own_looks: OwnLooks,
}

/// The socket, and room for those who use it: made once, outside of the actor, so that a request is not cut off by a failure
/// that is not its own.
pub struct AdminPort {
    socket: OwnersListener,
    room: Arc<Semaphore>,
}

impl AdminPort {
    pub fn new(socket: OwnersListener) -> Self {
        Self {
            socket,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }
}

pub struct Admin {
    port: Arc<AdminPort>,
    parts: Arc<AdminParts>,
}

impl Admin {
    pub fn new(port: Arc<AdminPort>, parts: Arc<AdminParts>) -> Self {
        Self { port, parts }
    }

    fn accept_next(&self, ctx: &mut Ctx<'_, Self>) {
        let port = self.port.clone();
        let accepted = async move {
            // The semaphore is never closed.
            let permit = port.room.clone().acquire_owned().await.ok();
            (port.socket.accept().await, permit)
        };
        ctx.run(accepted, |admin, (accepted, permit), ctx| match accepted {
            Ok((stream, uid)) => {
                let served = serve(stream, uid, admin.parts.clone());
                // A task of its own: a fault in one request ends that request, and one of this actor ends none.
                spawn_detached(async move {
                    served.await;
                    drop(permit);
                });
                admin.accept_next(ctx);
            }
            Err(error) => {
                tracing::error!(%error, "the administrator's socket failed");
                ctx.after(Duration::from_millis(100), |admin, ctx| admin.accept_next(ctx));
            }
        });
    }
}

async fn serve(stream: Unix, uid: u32, parts: Arc<AdminParts>) {
    let router = routes::router(parts, Caller::Local { uid });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an administrator's request was not finished"),
        Err(_) => tracing::warn!("an administrator's request was not done in time"),
    }
}

impl Behavior for Admin {
    /// It hears nothing but its stop.
    const MAILBOX: usize = 4;

    fn started(&mut self, ctx: &mut Ctx<'_, Self>) {
        self.accept_next(ctx);
    }
}
