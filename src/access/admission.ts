/** The sender of a request, as rates count it. */
export interface RequestSender {
  /** The holder of the token, or the address of a request without one. */
  readonly sender: string;
  readonly connection: { readonly sender: string };
}

/** Decides whether a request is dealt with now. Asked once a request, when it is known who sent it. */
export interface RequestAdmission {
  /** @throws FiletrackerError `rate-limited` and the like. */
  admit(request: RequestSender): void;
  /** What a request is refused with whose sender could not be told: `error`, or that there are too many of them. */
  refusalOf(request: RequestSender, error: unknown): unknown;
}

export const admitAll: RequestAdmission = { admit: () => undefined, refusalOf: (_request, error) => error };

/** What `GET /metrics` shows. */
export interface MetricsSource {
  readonly contentType: string;
  /** The text of all metrics, of all processes that serve this store. */
  text(): Promise<string>;
}
