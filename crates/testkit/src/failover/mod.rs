//! What a failover costs clients, measured: two directors and beside them two hosts of keepalived in namespaces, real
//! clients, and a master to whom something happens.

pub mod answerers;
pub mod lab;
pub mod report;
pub mod scenario;
pub mod traffic;
