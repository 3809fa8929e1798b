//! The lists of behaviours, from which tests and runs of a whole suite are made.

/// Makes a test of each behaviour of a store of deliveries, endpoints and history.
///
/// It takes an async function or closure that makes an empty store, and returns the store together
/// with what must live as long, such as a temporary folder: `(store, folder)`, or `(store, ())`.
/// Each test has a store of its own. Clones of a store share its content.
///
/// The macro makes one module per group of behaviours (`claim`, `publish` and so on), in which the
/// factory is called. So name the factory without `super::`, and put each use of the macro into a
/// module of its own if a file has several. `#[tokio::test]` makes the tests: the caller depends on
/// tokio with the features `macros` and `rt`.
///
/// # Example
/// ```
/// use webhooks_dispatch::MemoryStore;
///
/// webhooks_conformance::delivery_store_tests!(async || (MemoryStore::new(), ()));
/// ```
#[macro_export]
macro_rules! delivery_store_tests {
    ($factory:expr) => {
        $crate::__tests! {
            ($factory)
            claim (delivery_store::claim) {
                a_delivery_is_claimed_once_whoever_asks
                a_lease_that_ends_frees_the_delivery_and_fences_its_holder
                an_extended_lease_lasts
                busy_endpoints_and_limits_are_kept
                tenants_take_turns
                what_is_not_due_waits
                what_was_accepted_by_a_clock_that_was_ahead_need_not_wait_for_it
                a_large_backlog_is_handed_out_whole_and_once
                a_change_wakes_whoever_waits
            }
            endpoints (delivery_store::endpoints) {
                endpoints_are_stored_as_they_were_registered
                an_id_is_its_tenants_alone
                registering_an_equal_endpoint_changes_nothing
                states_change_as_operators_say
                what_is_published_for_a_paused_endpoint_waits
                a_disabled_endpoint_gets_nothing_until_it_is_enabled
                an_endpoint_that_goes_cancels_what_waits_for_it
                a_cancelled_delivery_has_its_reason
                an_ordered_head_waits_for_its_retry_through_a_change
            }
            history (delivery_store::history) {
                pages_are_stable_while_others_write
                every_filter_filters
                an_attempt_is_kept_with_all_that_is_known
                what_is_old_and_ended_is_forgotten
                a_payload_that_is_refused_by_now_keeps_no_page_from_others
                what_waits_for_a_closed_endpoint_is_not_counted
            }
            order (delivery_store::order) {
                an_ordered_endpoint_gets_one_at_a_time_in_order_of_acceptance
                an_endpoint_can_become_ordered_with_a_backlog
                the_next_one_follows_a_head_that_is_cancelled
                no_retry_is_made_early_because_another_delivery_is_cancelled
                replayed_deliveries_wait_for_the_one_in_flight
                nobody_waits_for_a_retry_that_is_not_to_be_made
            }
            publish (delivery_store::publish) {
                every_endpoint_that_wants_an_event_gets_a_delivery
                the_bytes_handed_out_are_the_bytes_published
                publishing_again_gives_the_first_result
                another_content_under_the_same_id_is_a_conflict
                tenants_do_not_share_ids_or_endpoints
                one_conflict_in_a_batch_stops_no_other_event
                many_publishers_of_one_id_publish_it_once
            }
            replay (delivery_store::replay) {
                a_delivery_that_ended_is_replayed_with_its_retries_anew
                all_failed_of_an_endpoint_are_replayed_in_portions
                an_endpoint_gets_what_it_missed
                what_was_had_before_a_new_registration_is_not_missed
                an_endpoint_gets_what_it_did_not_get_through_all_its_changes
                an_event_is_replayed_to_all_that_did_not_get_it
                what_cannot_be_replayed_is_said
                a_cursor_beyond_everything_ends_the_replay
                a_portion_that_is_asked_for_again_sends_nothing_twice
            }
            settle (delivery_store::settle) {
                each_outcome_has_its_status
                what_is_released_is_due_as_it_was
                a_batch_is_settled_in_one_step_and_answered_in_order
                health_follows_the_attempts
                cancelling_ends_what_waits_or_flies_and_nothing_else
                time_without_attempts_counts_for_nothing
            }
        }
    };
}

/// Makes a test of each behaviour of a store of webhooks' ids, as
/// [`delivery_store_tests`] does.
///
/// # Example
/// ```
/// use webhooks_receive::MemorySeenStore;
///
/// webhooks_conformance::seen_store_tests!(async || (MemorySeenStore::new(), ()));
/// ```
#[cfg(feature = "receive")]
#[macro_export]
macro_rules! seen_store_tests {
    ($factory:expr) => {
        $crate::__tests! {
            ($factory)
            ids (seen_store) {
                an_id_is_claimed_then_done_then_forgotten
                what_is_released_can_be_claimed
                a_claim_that_ended_is_taken_over
                who_lost_a_claim_releases_nothing
                who_lost_a_claim_may_still_be_done
                scopes_are_apart
                of_many_claims_at_once_one_is_new
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    (($factory:expr) $($module:ident ($($suite:ident)::+) { $($behaviour:ident)* })*) => {
        $($crate::__tests! { $module ($crate::$($suite)::+) ($factory) $($behaviour)* })*
    };
    ($module:ident ($suite:path) ($factory:expr) $($behaviour:ident)*) => {
        mod $module {
            use super::*;
            use $suite as __suite;

            $(
                #[tokio::test]
                async fn $behaviour() {
                    let (store, _kept) = ($factory)().await;
                    __suite::$behaviour(store).await;
                }
            )*
        }
    };
}

#[cfg(test)]
mod tests {
    /// A behaviour that no list names would never run.
    #[test]
    fn every_behaviour_is_listed() {
        let suites = [
            include_str!("delivery_store/claim.rs"),
            include_str!("delivery_store/endpoints.rs"),
            include_str!("delivery_store/history.rs"),
            include_str!("delivery_store/order.rs"),
            include_str!("delivery_store/publish.rs"),
            include_str!("delivery_store/replay.rs"),
            include_str!("delivery_store/settle.rs"),
            include_str!("seen_store.rs"),
        ];
        let listed: Vec<&str> = include_str!("suites.rs").lines().map(str::trim).collect();
        let mut count = 0;
        for behaviour in suites.into_iter().flat_map(str::lines) {
            let Some(rest) = behaviour.strip_prefix("pub async fn ") else { continue };
            let name = rest.split(['(', '<']).next().unwrap();
            assert!(listed.contains(&name), "{name} is not listed");
            count += 1;
        }
        assert_eq!(count, 59);
    }
}
