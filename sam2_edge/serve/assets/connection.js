// The WebSocket: frames and answers come in, commands go out.

const SILENCE = 12000; // milliseconds without a message after which the connection counts as lost
const LONGEST_WAIT = 8000; // milliseconds between tries to connect
const TOO_MANY = 1013; // close code of a server with too many viewers

export class Connection {
  // `stream` is the name of a stream, or undefined for the first or only one. `on` has the functions
  // opened(), lost(reason), frame(buffer), alive(), error(message, id), done(id), and
  // streams(names, name) for several.
  constructor(stream, on) {
    this.stream = stream;
    this.on = on;
    this.isClosed = false;
    this.lastId = 0;
    this.lastHeard = 0;
    this.retry = 500;
    this.connect();
    this.watch = setInterval(() => {
      if (this.isOpen && Date.now() - this.lastHeard > SILENCE) this.socket.close();
    }, 2000);
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  connect() {
    // Relative to the page, which a proxy may show under a path of its own.
    const address = new URL("ws", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (this.stream !== undefined) address.searchParams.set("stream", this.stream);
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.retry = 500;
      this.lastHeard = Date.now();
      this.on.opened();
    };
    this.socket.onmessage = (event) => {
      if (this.isClosed) return;
      this.lastHeard = Date.now();
      if (typeof event.data !== "string") this.on.frame(event.data);
      else this.answer(JSON.parse(event.data));
    };
    this.socket.onclose = (event) => {
      if (this.isClosed) return;
      this.on.lost(event.code === TOO_MANY ? "too many viewers, retrying" : "reconnecting");
      this.next = setTimeout(() => this.connect(), this.retry);
      this.retry = Math.min(2 * this.retry, LONGEST_WAIT);
    };
  }

  // Ends the connection for good.
  close() {
    this.isClosed = true;
    clearInterval(this.watch);
    clearTimeout(this.next);
    this.socket.close();
  }

  answer(message) {
    if (message.type === "streams") this.on.streams(message.streams, message.stream);
    else if (message.type === "alive") this.on.alive();
    else if (message.type === "error") this.on.error(message.message, message.id);
    else this.on.done(message.id);
  }

  // Sends a command; returns its number, or null without a connection.
  send(message) {
    if (!this.isOpen) return null;
    this.socket.send(JSON.stringify({ id: ++this.lastId, ...message }));
    return this.lastId;
  }
}
