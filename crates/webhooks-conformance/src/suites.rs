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
            addressed (delivery_store::addressed) {
                an_endpoint_with_channels_gets_events_that_share_one
                labels_are_no_content_of_an_event
                an_event_for_named_endpoints_goes_to_them_alone
                nobody_else_misses_an_event_for_named_endpoints
                a_missed_event_is_one_of_the_endpoints_channels
                a_summary_has_all_except_the_body
            }
            claim (delivery_store::claim) {
                a_delivery_is_claimed_once_whoever_asks
                a_lease_that_ends_frees_the_delivery_and_fences_its_holder
                an_extended_lease_lasts
                busy_endpoints_and_limits_are_kept
                the_room_of_a_worker_may_change_between_claims
                a_claim_ends_when_its_bytes_are_used_up
                a_claim_brings_what_a_rate_allows_within_a_second
                tenants_take_turns
                what_is_not_due_waits
                a_large_backlog_is_handed_out_whole_and_once
                a_change_wakes_whoever_waits
                what_was_accepted_by_a_clock_that_was_ahead_need_not_wait_for_it
            }
            ended (delivery_store::ended) {
                ended_attempts_are_all_attempts_by_their_ends
                ended_attempts_come_in_pages
                ended_attempts_are_those_of_a_tenant
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
            expunge (delivery_store::expunge) {
                an_expunction_leaves_the_history_without_content
                the_response_to_one_attempt_is_expunged
                an_expunction_is_of_one_tenant
                an_expunged_id_stays_taken
                an_expunged_event_is_not_replayed
                the_next_one_follows_an_ordered_head_that_is_expunged
                a_tenants_content_is_expunged_in_portions
            }
            feed (delivery_store::feed) {
                a_feed_has_the_events_in_order_as_they_are_read_one_by_one
                a_page_of_a_feed_is_bounded_in_events_and_in_bytes
                a_feed_is_of_one_tenant_and_from_a_time_on
                the_end_of_a_feed_is_before_what_comes_later
                a_reader_of_a_feed_misses_nothing_while_others_publish
                a_feed_has_events_that_were_expunged_without_their_bodies
            }
            figures (delivery_store::figures) {
                each_outcome_is_counted
                each_cancellation_is_counted
                a_replay_is_accepted_only_if_it_was_missed
                failures_are_counted_by_class_and_times_by_bucket
                figures_are_added_up_by_steps
                figures_are_told_by_endpoint_and_tenant
                figures_are_exact_when_many_write_at_once
                old_figures_are_added_up_by_the_hour
                very_old_figures_are_forgotten
                figures_outlive_the_events_that_they_count
            }
            filters (delivery_store::filters) {
                histories_are_filtered_by_status_and_number_of_attempts
                histories_are_filtered_by_the_result_of_attempts
                histories_are_filtered_by_channel_and_tag
                an_event_is_found_by_one_delivery_that_fits
            }
            history (delivery_store::history) {
                pages_are_stable_while_others_write
                every_filter_filters
                an_attempt_is_kept_with_all_that_is_known
                what_is_old_and_ended_is_forgotten
                a_payload_that_is_refused_by_now_keeps_no_page_from_others
                what_waits_for_a_closed_endpoint_is_not_counted
            }
            jobs (delivery_store::jobs) {
                a_job_is_stored_as_it_was_created
                a_job_is_created_once_for_a_request
                jobs_are_listed_the_newest_first
                a_job_is_leased_by_one_of_many
                the_job_that_waits_longest_is_leased_first
                progress_goes_on_with_another_worker
                a_stopped_job_is_resumed_where_it_ended
                a_failed_job_tells_why_until_it_is_resumed
                a_job_wakes_whoever_waits
                a_lease_that_was_extended_lasts
            }
            lists (delivery_store::lists) {
                endpoints_are_listed_by_tenant_and_id
                every_filter_of_endpoints_filters
                the_newest_endpoints_come_first_if_asked_for
                pages_of_endpoints_are_stable_in_both_directions
                a_page_of_no_endpoints_leads_nowhere
                a_cursor_of_endpoints_in_another_order_is_refused
                endpoints_are_counted_up_to_a_bound
            }
            model (delivery_store::model) {
                endpoints_are_those_of_the_store_in_memory
            }
            monitor (delivery_store::monitor) {
                a_store_that_works_answers
                the_depth_of_queues_is_told_by_tenant
                a_closed_endpoint_has_no_queue
                no_worker_is_late_for_what_must_wait
                the_commits_and_connections_of_a_store_are_counted
                the_health_of_several_endpoints_is_told
                an_endpoint_that_is_enabled_again_begins_well
            }
            operations (delivery_store::operations) {
                a_batch_is_cancelled_and_answered_in_order
                a_large_batch_is_cancelled_whole
                a_tenants_events_are_forgotten_and_no_others
            }
            order (delivery_store::order) {
                an_ordered_endpoint_gets_one_at_a_time_in_order_of_acceptance
                an_endpoint_can_become_ordered_with_a_backlog
                the_next_one_follows_a_head_that_is_cancelled
                no_retry_is_made_early_because_another_delivery_is_cancelled
                nobody_waits_for_a_retry_that_is_not_to_be_made
                replayed_deliveries_wait_for_the_one_in_flight
            }
            pages (delivery_store::pages) {
                pages_forward_and_back_are_the_same
                pages_lead_back_to_the_start_and_to_what_came_since
                both_cursors_bound_a_page
                a_page_of_nothing_leads_nowhere
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
            records (delivery_store::records) {
                a_record_tells_the_state_of_a_delivery
                a_failed_record_has_its_last_attempt
                a_released_record_is_as_before
                a_cancelled_record_tells_the_reason_and_the_time
                a_replayed_record_begins_anew_and_remembers
                a_record_of_a_missed_event_is_created_by_the_replay
                an_ordered_record_is_due_when_it_was_queued
                single_records_are_found_by_their_numbers
            }
            replay (delivery_store::replay) {
                a_cursor_beyond_everything_ends_the_replay
                a_delivery_that_ended_is_replayed_with_its_retries_anew
                all_failed_of_an_endpoint_are_replayed_in_portions
                an_endpoint_gets_what_it_missed
                what_was_had_before_a_new_registration_is_not_missed
                an_endpoint_gets_what_it_did_not_get_through_all_its_changes
                an_event_is_replayed_to_all_that_did_not_get_it
                what_cannot_be_replayed_is_said
                a_portion_that_is_asked_for_again_sends_nothing_twice
            }
            scheduled (delivery_store::scheduled) {
                a_scheduled_delivery_waits_for_its_time
                a_time_that_has_passed_means_at_once
                a_clock_that_is_set_back_leaves_scheduled_deliveries
                a_replayed_delivery_is_scheduled_no_longer
                a_scheduled_delivery_can_be_cancelled_before
                an_endpoint_that_goes_cancels_what_is_scheduled_for_it
                what_is_scheduled_survives_changes_of_its_endpoint
                an_ordered_endpoint_goes_on_before_a_scheduled_delivery
                an_ordered_endpoint_gets_a_scheduled_delivery_after_those_that_wait
                a_long_schedule_comes_out_whole_and_in_time
                an_event_that_is_scheduled_is_not_forgotten
                a_missed_event_that_is_scheduled_waits_for_its_time
            }
            search (delivery_store::search) {
                a_text_is_found_as_it_is_written
                a_search_looks_at_filtered_events
                a_search_goes_on_where_it_ended
                a_search_of_nothing_looks_nowhere
                a_search_finds_nothing_in_what_was_expunged
            }
            settle (delivery_store::settle) {
                each_outcome_has_its_status
                what_is_released_is_due_as_it_was
                a_batch_is_settled_in_one_step_and_answered_in_order
                health_follows_the_attempts
                time_without_attempts_counts_for_nothing
                cancelling_ends_what_waits_or_flies_and_nothing_else
            }
            trace (delivery_store::trace) {
                a_trace_is_stored_and_returned_with_each_claim
                a_replayed_delivery_has_its_trace
                a_trace_is_no_part_of_the_content
            }
            troubles (delivery_store::troubles) {
                troubles_are_the_attempts_that_failed_or_followed_another
                troubles_come_in_pages_by_their_time
            }
            try_now (delivery_store::try_now) {
                a_retry_that_waits_is_due_at_once_and_more_follow
                one_retry_of_many_is_made_at_once
                a_claimed_delivery_is_left_to_its_claim
                a_delivery_that_is_due_waits_on
                workers_probe_the_endpoint_of_what_is_tried_or_replayed
                a_delivery_that_has_ended_cannot_be_tried
                a_paused_endpoint_gets_it_when_it_is_resumed
                a_scheduled_delivery_is_sent_before_its_time
                an_ordered_endpoint_goes_on_with_the_retry_for_which_it_waits
                a_delivery_that_is_tried_now_wakes_a_worker
            }
            versions (delivery_store::versions) {
                a_change_is_made_only_under_its_condition
                of_many_writers_of_one_version_one_wins
                of_many_that_add_one_endpoint_one_does
                a_revision_tells_each_change_and_its_time
                no_version_of_an_id_comes_twice
                labels_and_texts_of_an_endpoint_are_stored
                a_tenant_has_no_more_endpoints_than_it_may
                many_at_once_add_no_more_endpoints_than_a_tenant_may_have
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
            include_str!("delivery_store/addressed.rs"),
            include_str!("delivery_store/claim.rs"),
            include_str!("delivery_store/ended.rs"),
            include_str!("delivery_store/endpoints.rs"),
            include_str!("delivery_store/expunge.rs"),
            include_str!("delivery_store/feed.rs"),
            include_str!("delivery_store/figures.rs"),
            include_str!("delivery_store/filters.rs"),
            include_str!("delivery_store/history.rs"),
            include_str!("delivery_store/jobs.rs"),
            include_str!("delivery_store/lists.rs"),
            include_str!("delivery_store/model.rs"),
            include_str!("delivery_store/monitor.rs"),
            include_str!("delivery_store/operations.rs"),
            include_str!("delivery_store/order.rs"),
            include_str!("delivery_store/pages.rs"),
            include_str!("delivery_store/publish.rs"),
            include_str!("delivery_store/records.rs"),
            include_str!("delivery_store/replay.rs"),
            include_str!("delivery_store/scheduled.rs"),
            include_str!("delivery_store/search.rs"),
            include_str!("delivery_store/settle.rs"),
            include_str!("delivery_store/trace.rs"),
            include_str!("delivery_store/troubles.rs"),
            include_str!("delivery_store/try_now.rs"),
            include_str!("delivery_store/versions.rs"),
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
        assert_eq!(count, 178);
    }
}
