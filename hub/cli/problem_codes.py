"""Every code that a problem may have: what it means, and what to do. A test holds it to the code base."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """What a code means, and what to do about it."""

    meaning: str
    remedy: str


_WAIT = "Nothing: it is tried again. If it stays, `calque doctor`."
_REPORT = "It is a fault of the program or of its installation: see the log of the part, and report it."
_AGAIN = "Do it again."

CALLER: dict[str, Code] = {
    "invalid": Code("What was sent is not as it should be; `field` says which part.", "Change it as the remedy says."),
    "not_found": Code("What was named does not exist.", "List what there is; names of deleted things are free."),
    "conflict": Code("It does not fit the present state, or a name is taken.", "Choose otherwise, or wait and repeat."),
    "forbidden": Code("The credentials do not allow it.", "Use a context with others, or ask for the right."),
    "expired": Code("The command waited longer than it may, and was not carried out.", "Send it again with a new id."),
    "locked": Code(
        "The image or copy is locked in a repository with a retention: nothing deletes it before the named time.",
        "Delete it after that time. `calque image describe` and `calque repository describe` say until when.",
    ),
    "incomplete": Code("Not all parts of a copy were written.", "Write the named part again, then commit."),
    "already_committed": Code("The copy is whole; it can't be written any more.", "Make a new copy."),
    "failed": Code("The operation failed without saying why.", "`calque operation describe ID`."),
}
ENVIRONMENT: dict[str, Code] = {
    "unreachable": Code("No hub, or no server of the bus, can be reached.", "`calque up`, or `calque context show`."),
    "unavailable": Code("A part that is needed does not answer now.", _WAIT),
    "timeout": Code("No answer, or no end, within the time for it.", _WAIT),
    "deadline": Code("The operation did not end within its time, and was undone.", "See which step hung; repeat it."),
    "wait_timed_out": Code("The wait is over; the operation goes on.", "`calque operation wait ID`."),
    "rejected": Code("The command was rejected without a reason.", _REPORT),
    "stopped": Code("The part stopped before it had answered.", _AGAIN),
    "stopping": Code("The broker is being stopped; it goes on after its restart.", _WAIT),
    "starting": Code("The service is still being started.", _WAIT),
    "contended": Code("Others change the same thing at the same time.", _AGAIN),
    "lagging": Code("The hub has not read the newest events yet.", _AGAIN),
    "events_replaced": Code("The stream `EVENTS` was made anew under a running hub, which starts again.", _AGAIN),
    "replay_failed": Code("The replay beside the hub did not come to its end.", "See the hub's log; do it again."),
    "forgetting": Code("A site is still to delete copies of an image that is deleted.", _WAIT),
    "broker_away": Code("A broker that this needs was there and does not answer now.", "Repeat it when it is back."),
    "site_offline": Code("The only sites that hold the copies do not report.", "Repeat it when the site is back."),
    "site_unavailable": Code("The site does not answer now.", "`calque site list`; repeat it when it is online."),
    "not_announced": Code("The site has not said yet who it is.", "Wait until `calque site list` shows it online."),
    "stream_full": Code(
        "A stream is at its limit and refuses more, rather than lose what it has.",
        "Free room on the disk of the server, or raise the limit in its configuration.",
    ),
    "full": Code("A disk is full, or too many files are open.", "Free room; `calque doctor` says where."),
    "archived": Code("Data of a copy lies in an archive and is being brought back.", "Wait, for hours with some."),
    "no_object_lock": Code(
        "The bucket of a repository was not made with Object Lock.", "Name one that was, or leave object_lock out."
    ),
    "own_key": Code(
        "An object is encrypted with a key that S3 does not keep (SSE-C).", "Write it anew with a key of the server's."
    ),
    "clock_skew": Code("The clocks of two machines differ too much.", "Set them; let NTP keep them."),
    "storage": Code("The repository's file system refuses.", "See the message; free room, or make it writable."),
    "busy": Code("Somebody else works on the same thing.", _WAIT),
    "in_use": Code("Another broker uses the same state directory.", "Stop it; each broker needs one of its own."),
    "no_port": Code("No port is free for an app service.", "Stop what listens on them."),
    "not_stopped": Code("A process can't be ended now, such as one that waits for a disk.", _WAIT),
    "not_frozen": Code("Not all processes of a service stood still in time.", "Save again."),
    "no_guard": Code("What ends a pause by itself could not be started, so nothing was paused.", "Save again."),
    "service_not_running": Code("The app service does not run now.", "`calque app logs APP`; start it."),
    "service_restarted": Code("The service was restarted while its writers were held.", "Save again."),
    "hook_timeout": Code("The app's hook did not answer in time.", "See the app's log; hooks have to be quick."),
    "hook_unreachable": Code("The app's hook can't be reached.", "See that the app listens on its port."),
    "unschedulable": Code("No node of the cluster takes a pod of the service.", "Make room there, or add a node."),
    "quota": Code("A quota of the cluster's namespace is used up.", "Raise it, or delete what is not needed."),
    "no_address": Code("The cluster has given a public service no address yet.", _WAIT),
    "no_log": Code("A node of the cluster does not give the log of a pod.", _AGAIN),
    "no_end": Code("Handling a message ended its process, again and again.", "See the log of the part; `calque dlq`."),
    "max_deliveries": Code("A consumer gave a message up after its last delivery.", "`calque dlq describe ID`."),
    "terminated": Code("A consumer was told never to deliver a message again.", "`calque dlq describe ID`."),
    "removed": Code("Somebody removed a service while it was deployed.", "Deploy it again."),
    "changed_in_cluster": Code("Somebody else changed the same object of the cluster.", _WAIT),
    "repository_unreachable": Code("The connection to the copy repository broke.", _WAIT),
    "repository_failed": Code("The copy repository can't do it now.", _WAIT),
    "kept_gone": Code(
        "An entry can't be taken over from the copy before, which was deleted or is damaged.",
        "Nothing: the next attempt sends it anew.",
    ),
    "entry_changed": Code("A file or object changed while it was read.", "Save again."),
}
BROKER: dict[str, Code] = {
    "internal": Code("An error inside a part; its log says what.", _REPORT),
    "cancelled": Code("It was cancelled, and what it had made is removed.", "Start it again if that was not meant."),
    "child_cancelled": Code("A site cancelled its part of the operation.", "Start it again if that was not meant."),
    "unsupported": Code("The broker does not offer this operation.", "Choose another broker: `calque broker list`."),
    "attribute_missing": Code(
        "A template refers to an attribute that the binding does not have.",
        "`calque broker describe`; correct the template and apply a new version.",
    ),
    "artifact_changed": Code("The artifact is not that of the template any more.", "Apply a new version."),
    "cannot_start": Code("The process of an app service can't be made.", "See the message; correct the command."),
    "image_pull": Code(
        "The container image can't be pulled.", "Correct its name, or give the cluster access (`image_pull_secrets`)."
    ),
    "container_config": Code("The cluster can't make the container.", "See the message; correct the template."),
    "unhealthy": Code("The service was not healthy in its start period.", "`calque app logs APP`."),
    "crash_loop": Code("The service ends again and again after its start.", "`calque app logs APP`."),
    "pods_refused": Code("The cluster refuses the service's pods.", "See the message; ask who runs the cluster."),
    "no_namespace": Code("The namespace of a space does not exist.", "Make it, or set `create_namespaces`."),
    "refused_by_cluster": Code("The API server refuses an object.", "See the message."),
    "no_rights": Code("The cluster does not let the broker do this.", "Give its account the rights of its role."),
    "port_taken": Code("The port of an app service is held by another process.", "Stop that, or deploy again."),
    "hook_failed": Code("The command of a hook failed.", "See its output in the message, and the app's log."),
    "hook_refused": Code("The app's hook refused.", "See the app's log for why."),
    "quiesce_lapsed": Code("Writers went on before every moment was fixed.", "Save again."),
    "not_masked": Code("A copy was to be masked, and its broker does not say it was.", "Upgrade the broker."),
    "cannot_mask": Code("Data can't be masked as the rules say; none of it is stored.", "Do as the remedy says."),
    "cut_short": Code("The data ended in the middle of a row.", "Save again."),
    "moment_lost": Code("The prepared moment of a copy is gone; another would not be the same.", "Save again."),
    "secrets_lost": Code("Stored secrets can't be opened with the broker's key.", "Deploy the service again."),
    "secret_missing": Code("The site's store has no such secret.", "Make the binding anew: deploy again."),
    "secret_not_set": Code("A secret that is referred to was not set at the site.", "`calque secret set NAME`."),
    "secret_unreadable": Code("A secret can't be opened with the site's key.", "Restore the key, or deploy again."),
    "secret_reference": Code("That is no reference into this site's store.", _REPORT),
    "not_for_us": Code("What was sealed is for another site's key.", "See that the site's keys were not mixed up."),
    "unreadable": Code("The sealed secrets of a binding can't be opened.", "Ask again."),
    "corrupt": Code("Stored data is not what was written; it is never delivered.", "Transfer the copy again."),
    "refused": Code("The server behind the broker does not take what the broker asks of it.", "Do as the remedy says."),
    "settings": Code("What the broker was told at its start is of no use.", "Correct the named field of its settings."),
    "wrong_copy": Code("The copy is not one that this broker can restore.", "Choose the broker that made it."),
    "parts_differ": Code("Broker and repository disagree about what was copied.", "Save again."),
    "wrong_layout": Code("A part of a copy has another form than it should.", "Choose the broker that made it."),
    "wrong_certificate": Code("The repository's certificate is not the expected one.", "See its keys and the CA."),
    "wrong_key": Code("The key at hand does not open the repository, or is no key.", "Name it as a recipient there."),
    "wrong_grant": Code("A grant is for another copy.", _REPORT),
    "repository": Code("The repository refuses.", "See the message."),
    "repository_refused": Code("The copy repository refuses for good.", "See the message."),
    "unknown_format": Code("The repository is of a newer format.", "Use a version of calque that knows it."),
    "collection_blocked": Code("A damaged copy keeps unused data from being removed.", "Delete it, then collect."),
    "attributes_too_long": Code("Extended attributes of a file are too many to copy.", "Remove some."),
    "not_permitted": Code("The broker may not read or write there.", "Let the broker's user own it."),
    "state_dir": Code("The broker can't use its state directory.", "Make it writable for the broker."),
    "program_missing": Code("A program of PostgreSQL is not where it should be.", "Correct `bin_dir`."),
    "wrong_version": Code("The copy is of another version of PostgreSQL than is here.", "Choose another site."),
    "lacking": Code("The server lacks something that the copy needs.", "Do as the remedy says."),
    "not_maskable": Code("What is copied as files can't be masked.", "Save from a data service of another plan."),
    "not_offered": Code("The plan can't be had at this broker now.", "See `limits` in `calque broker describe`."),
    "no_account": Code("Nobody is there whom a server could run as.", "Name a user in `dedicated.user`."),
    "program_too_old": Code("The broker's PostgreSQL programs are older than the server.", "Give it newer ones."),
    "postgres": Code("PostgreSQL refuses; the message has its SQLSTATE.", "See the message."),
    "s3": Code("The object store refuses.", "See the message."),
    "no_bucket": Code("The bucket of the repository does not exist.", "Make it, or correct the broker's settings."),
    "no_database": Code("The database of the repository does not exist.", "Make it, or correct the settings."),
    "proxy": Code("A proxy of the broker's environment can't be used.", "Correct the variable that is named."),
    "wrong_region": Code("The bucket is in another region.", "Set the region that the remedy names."),
    "unauthorised": Code("The server refuses the broker's own credentials.", "Correct the broker's settings."),
    "jetstream": Code("The bus refuses; the message is that of the server.", "`calque logs hub-nats`."),
    "not_clustered": Code("Streams are to be kept by more servers than there are.", "Correct `bus.replicas`."),
    "unexpected_reply": Code("A part answered with another type than it should.", "Bring all to one version."),
    "reply_too_large": Code("An answer is larger than the bus takes.", "Ask for less: fewer lines, a lower limit."),
    "unknown_event": Code("There is an event that this version does not know.", "Use a newer version of calque."),
}
