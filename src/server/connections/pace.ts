import type { IncomingMessage } from 'node:http';

/** What is remembered of a connection from one look to the next. */
export class Pace {
  /** The request whose body is being waited for, for how long, and what had come when that began. */
  body: IncomingMessage | undefined;
  bodyMs = 0;
  bodyStartBytes = 0;
  /** What lay ready for the reader when that began to be waited for, and what he had taken until then. */
  readyBytes = 0;
  takenBytes = 0;
  readyMs = 0;
  /** How many requests had come when the connection fell quiet, and how long ago that was. */
  quietRequests = 0;
  quietMs = 0;
}
