//! `dirigent failover`: virtual routers, asked and told.

use crate::ask::Target;
use crate::cli::FailoverCommand;
use crate::commands::{How, show, told, watched};
use crate::failure::Result;
use crate::print;
use dirigent_api::{Changed, Rehearsal, VirtualRouter, path};
use form_urlencoded::Serializer;

/// Carries a command out.
pub async fn run(target: &Target, command: FailoverCommand) -> Result<()> {
    match command {
        FailoverCommand::Status(list) => {
            watched(list, async |how| {
                let routers: Vec<VirtualRouter> = target.get(path::FAILOVER).await?;
                show(&routers, how, |routers| print::virtual_routers(routers))
            })
            .await
        }
        FailoverCommand::Now { router, print } => hand_over(target, router, false, How::once(print)).await,
        FailoverCommand::Back { router, print } => hand_over(target, router, true, How::once(print)).await,
        FailoverCommand::Rehearse { router, what, print } => {
            let all: Vec<Rehearsal> = target.get(&asked(path::REHEARSE, ("what", &what), router.as_deref())).await?;
            show(&all, How::once(print), |all| {
                all.iter().map(|one| format!("{}: {}\n", one.router, one.text)).collect()
            })
        }
    }
}

async fn hand_over(target: &Target, router: Option<String>, back: bool, how: How) -> Result<()> {
    let path = asked(path::HAND_OVER, ("back", &back.to_string()), router.as_deref());
    let changed: Changed = target.post(&path).await?;
    show(&changed, how, told)
}

fn asked(path: &str, first: (&str, &str), router: Option<&str>) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair(first.0, first.1);
    if let Some(router) = router {
        query.append_pair("router", router);
    }
    format!("{path}?{}", query.finish())
}
