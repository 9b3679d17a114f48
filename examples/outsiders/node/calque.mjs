// All that it takes to speak with a hub: a NATS client and JSON.
// Messages are CloudEvents 1.0; their data and subjects are those of docs/messages.md and schemas/generated.

import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { connect, headers, JSONCodec, nkeyAuthenticator } from "nats";

export const JETSTREAM = "JSHUB.API";
const ANSWER_MS = 5000;
const json = JSONCodec();

/** The hub said no: `problem` has `code`, `message` and perhaps `field` and `remedy`. */
export class Refused extends Error {
  constructor(problem) {
    super(`${problem.code}: ${problem.message}${problem.remedy ? ` (${problem.remedy})` : ""}`);
    this.problem = problem;
  }
}

/** A UUIDv7 (RFC 9562, section 5.7): ids that sort by time. */
export function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = bytes.toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** A connection with the credentials that `calque principal add` wrote. */
export class Hub {
  static async connect(credentials) {
    const known = JSON.parse(await readFile(credentials, "utf8"));
    const seed = (await readFile(join(dirname(credentials), known.nkey_seed_file), "utf8")).trim();
    const connection = await connect({
      servers: known.servers,
      authenticator: nkeyAuthenticator(new TextEncoder().encode(seed)),
      inboxPrefix: known.inbox_prefix,
    });
    return new Hub(connection, known);
  }

  constructor(connection, known) {
    this.connection = connection;
    this.principal = known.principal;
    this.inboxPrefix = known.inbox_prefix;
  }

  envelope(kind, data, id, more = {}) {
    return json.encode({
      specversion: "1.0",
      id,
      type: `calque.${kind}.v1`,
      source: this.principal,
      time: new Date().toISOString(),
      datacontenttype: "application/json",
      data,
      ...more,
    });
  }

  /** The data of the reply to a question or an act. Throws `Refused`. */
  async ask(subject, kind, data) {
    const message = this.envelope(kind, data, uuid7());
    const reply = await this.connection.request(subject, message, { timeout: ANSWER_MS, headers: headed() });
    const answer = json.decode(reply.data);
    if (answer.type === "calque.problem.v1") throw new Refused(answer.data.problem);
    return answer.data;
  }

  /**
   * The answer to a command, `accepted` or `queued`. Throws `Refused`.
   * Sent again with the same id, however often, it has one effect and the same answer.
   */
  async command(aggregate, verb, target, data, id) {
    const inbox = `${this.inboxPrefix}.${uuid7()}`;
    const answers = this.connection.subscribe(inbox);
    const arrived = answers[Symbol.asyncIterator]();
    let next = arrived.next();
    const message = this.envelope(`command.hub.${aggregate}.${verb}`, data, id, {
      correlationid: id,
      replyto: inbox,
      expirytime: new Date(Date.now() + 3_600_000).toISOString(),
    });
    const subject = `calque.cmd.hub.${this.principal}.${aggregate}.${target}.${verb}`;
    try {
      for (let attempt = 0; attempt < 5; attempt += 1) {
        const stored = await this.connection.request(subject, message, { timeout: ANSWER_MS, headers: headed(id) });
        const { error } = json.decode(stored.data);
        if (error) throw new Refused({ code: error.err_code, message: error.description });
        const came = await Promise.race([next, after(ANSWER_MS)]);
        if (came === undefined) continue; // stored, and no hub has answered yet: send it again
        next = arrived.next();
        const answer = json.decode(came.value.data).data;
        if (answer.state === "rejected") throw new Refused(answer.problem);
        return answer;
      }
    } finally {
      answers.unsubscribe();
    }
    throw new Error(`no hub answered; the command ${id} is stored and will be carried out`);
  }
}

function headed(id) {
  const made = headers();
  made.set("content-type", "application/cloudevents+json");
  if (id !== undefined) made.set("Nats-Msg-Id", id);
  return made;
}

export function after(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref());
}
