//! The process of the cluster: it alone sends, and alone applies what comes.

use std::time::Duration;

use super::bindings as k;
use super::child::{Child, Work, LONGEST_SLEEP};
use super::dmq::DmqBus;
use super::module::Module;
use crate::error;
use crate::member::Driver;

/// Its rank and its connection to the TCP main process let dmq send over every transport in it.
pub const CHILD: Child = Child {
    rank: k::PROC_RPC,
    name: c"APIBAN cluster",
    make_sock: true,
    wanted: |module| module.config.enable_dmq,
    wakeup: |module| &module.wakeups.cluster,
    orderly_end: false,
    life: |module| {
        Box::new(Clustering {
            module,
            driver: None,
            failed: false,
        })
    },
};

struct Clustering {
    module: &'static Module,
    /// `None` until it could be started.
    driver: Option<Driver<'static, DmqBus>>,
    /// A start has failed, and that was logged.
    failed: bool,
}

impl Work for Clustering {
    fn turn(&mut self) -> Duration {
        if let Some(driver) = &mut self.driver {
            return driver.turn();
        }
        let module = self.module;
        let Some(cluster) = &module.shared.cluster else {
            return LONGEST_SLEEP;
        };
        match Driver::new(module.bans(), cluster, &module.config, module.clock, DmqBus) {
            Ok(mut driver) => {
                let pause = driver.turn();
                self.driver = Some(driver);
                pause
            }
            Err(problem) => {
                if !std::mem::replace(&mut self.failed, true) {
                    error!("the cluster cannot start: {problem}; trying again");
                }
                LONGEST_SLEEP
            }
        }
    }

    fn end(&mut self) {}
}
