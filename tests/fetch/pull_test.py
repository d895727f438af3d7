#!/usr/bin/env python3
"""stoke pull against a local server that misbehaves. usage: pull_test.py PATH_OF_STOKE [unittest options]

Each behaviour of the server is a path prefix: /plain/NAME, /drop/NAME, ... Everything runs on the loopback interface.
"""
import hashlib
import http.server
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

STOKE = ""
BODY = random.Random(1).randbytes(3_000_017)
OTHER = random.Random(2).randbytes(3_000_017)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        mode = self.path.split("/")[1]
        with server.lock:
            count = server.counts[self.path] = server.counts.get(self.path, 0) + 1
            server.requests.append((self.path, dict(self.headers)))
        getattr(self, "mode_" + mode, self.mode_missing)(count)

    def answer(self, body=BODY, etag='"v1"', limit=None, ranges=True, extra=(), linked=None):
        """The file, or the wanted rest of it; the connection is cut after `limit` bytes."""
        begin, status = 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fresh = self.headers.get("If-Range", etag) == etag
        if ranges and wanted and fresh:
            begin, status = int(wanted.group(1)), 206
        if begin >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
        if linked:
            self.send_header("X-Linked-ETag", linked)
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - begin))
        for name, value in extra:
            self.send_header(name, value)
        self.end_headers()
        rest = body[begin:] if limit is None else body[begin : begin + limit]
        self.wfile.write(rest)
        if limit is not None and begin + limit < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    def mode_missing(self, _):
        self.send_error(404)

    def mode_plain(self, _):
        self.answer()

    def mode_drop(self, _):
        self.answer(limit=700_000)

    def mode_dropweak(self, count):
        self.answer(limit=700_000 if count < 3 else None, etag='W/"weak"')

    def mode_noetag(self, count):
        self.answer(limit=700_000 if count < 3 else None, etag=None)

    def mode_norange(self, count):
        self.answer(limit=1_000_000 if count < 3 else None, ranges=False)

    def mode_newversion(self, count):
        """The file changes after the first, cut, answer."""
        self.answer(limit=1_000_000) if count == 1 else self.answer(body=OTHER, etag='"v2"')

    def mode_liesrange(self, count):
        """Answers a range request with another version's range, ignoring If-Range."""
        if count == 1:
            self.answer(limit=1_000_000)
        elif "Range" in self.headers:
            self.headers.replace_header("If-Range", '"v2"')
            self.answer(body=OTHER, etag='"v2"')
        else:
            self.answer(body=OTHER, etag='"v2"')

    def mode_corrupt(self, count):
        self.answer(body=BODY[:-1] + bytes([BODY[-1] ^ 1]) if count == 1 else BODY)

    def mode_alwayscorrupt(self, _):
        self.answer(body=BODY[:-1] + bytes([BODY[-1] ^ 1]))

    def mode_error(self, count):
        self.send_error(500) if count < 3 else self.answer()

    def mode_dead(self, _):
        self.send_error(503)

    def mode_gated(self, _):
        self.answer() if self.headers.get("Authorization") == "Bearer token" else self.send_error(401)

    def mode_redirect(self, _):
        self.send_response(302)
        self.send_header("Location", "/plain/elsewhere")
        self.send_header("X-Linked-ETag", f'"{SHA256}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def mode_loop(self, _):
        self.send_response(302)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def mode_slow(self, count):
        self.answer(limit=500_000) if count < 1000 else self.answer()

    def mode_huge(self, _):
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 60))
        self.end_headers()
        self.wfile.write(b"begins")
        self.close_connection = True

    def mode_owner(self, _):
        """A hub: /owner/repo/resolve/main/FILE redirects to the file and names its checksum."""
        self.mode_redirect(_)


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that hangs up is part of the tests."""


class PullTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(("127.0.0.1", 0), Handler)
        cls.server.lock = threading.Lock()
        cls.thread = threading.Thread(target=cls.server.serve_forever, daemon=True)
        cls.thread.start()
        cls.base = f"http://127.0.0.1:{cls.server.server_address[1]}"

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def setUp(self):
        self.server.counts, self.server.requests = {}, []
        self.store = tempfile.mkdtemp(prefix="stoke_pull_")
        self.env = {**os.environ, "STOKE_MODELS": self.store, "HF_ENDPOINT": self.base, "no_proxy": "127.0.0.1"}
        for name in ("http_proxy", "HTTP_PROXY", "HF_TOKEN", "STOKE_CATALOGUE"):
            self.env.pop(name, None)

    def tearDown(self):
        shutil.rmtree(self.store)

    def pull(self, name, *flags, **env):
        command = [STOKE, "pull", name if name.startswith(("hf:", "http", "tin")) else self.base + name]
        command += ["--retry-wait", "0.01", *flags]
        return subprocess.run(command, env={**self.env, **env}, capture_output=True, text=True, timeout=60)

    def assert_pulled(self, done, body=BODY, name="m.gguf"):
        self.assertEqual(done.returncode, 0, done.stderr)
        path = os.path.join(self.store, name)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), body)
        self.assertEqual(os.listdir(os.path.dirname(path)), [os.path.basename(path)])  # no .part, no state
        return path

    def assert_failed(self, done, *texts):
        self.assertEqual(done.returncode, 1, done.stderr)
        last = done.stderr.strip().splitlines()[-1]
        for text in texts:
            self.assertIn(text, last)
        self.assertFalse(os.path.exists(os.path.join(self.store, "m.gguf")))
        for folder, _, names in os.walk(self.store):
            self.assertFalse([name for name in names if os.path.getsize(os.path.join(folder, name)) == 0], folder)

    def test_plain_prints_the_path(self):
        done = self.pull("/plain/m.gguf")
        self.assertEqual(done.stdout.strip(), self.assert_pulled(done))
        self.assertIn("no checksum is known", done.stderr)

    def test_json_has_the_bytes_and_the_checksum_that_came(self):
        done = self.pull("/plain/m.gguf", "--json")
        path = self.assert_pulled(done)
        self.assertEqual(json.loads(done.stdout)["files"], [
            {"path": path, "url": self.base + "/plain/m.gguf", "bytes": len(BODY), "bytes_resumed": 0, "sha256": SHA256,
             "verified": False}])

    def test_pulling_again_fetches_nothing(self):
        self.assert_pulled(self.pull("/plain/m.gguf"))
        before = len(self.server.requests)
        done = self.pull("/plain/m.gguf", "--json")
        self.assert_pulled(done)
        self.assertEqual(len(self.server.requests), before)
        file = json.loads(done.stdout)["files"][0]
        self.assertEqual(sorted(file), ["bytes", "path", "url"])  # nobody named a checksum, and it is not read again
        self.assertEqual(file["bytes"], len(BODY))
        file = json.loads(self.pull("/plain/m.gguf", "--json", "--sha256", SHA256).stdout)["files"][0]
        self.assertEqual((file["bytes"], file["sha256"], file["verified"]), (len(BODY), SHA256, True))

    def test_dropped_connections_are_resumed(self):
        done = self.pull("/drop/m.gguf", "--sha256", SHA256, "--json")
        self.assert_pulled(done)
        ranges = [headers.get("Range") for _, headers in self.server.requests]
        self.assertEqual(ranges[:2], [None, "bytes=700000-"])
        self.assertEqual(self.server.requests[1][1].get("If-Range"), '"v1"')
        self.assertEqual(json.loads(done.stdout)["files"][0]["sha256"], SHA256)

    def test_without_a_strong_etag_or_checksum_it_starts_over(self):
        for mode in ("dropweak", "noetag"):
            with self.subTest(mode):
                self.assert_pulled(self.pull(f"/{mode}/{mode}.gguf"), name=f"{mode}.gguf")
                self.assertFalse(any("Range" in headers for _, headers in self.server.requests))
            shutil.rmtree(self.store)
            os.mkdir(self.store)

    def test_a_server_that_ignores_ranges(self):
        self.assert_pulled(self.pull("/norange/m.gguf"))

    def test_a_new_version_midway_is_fetched_whole(self):
        self.assert_pulled(self.pull("/newversion/m.gguf"), body=OTHER)

    def test_a_range_of_another_version_is_not_glued_on(self):
        self.assert_pulled(self.pull("/liesrange/m.gguf"), body=OTHER)

    def test_corrupt_bytes_are_fetched_again(self):
        done = self.pull("/corrupt/m.gguf", "--sha256", SHA256)
        self.assert_pulled(done)
        self.assertIn("fetching it once more", done.stderr)

    def test_always_corrupt_fails_and_keeps_nothing(self):
        self.assert_failed(self.pull("/alwayscorrupt/m.gguf", "--sha256", SHA256), "SHA-256 is", SHA256)
        self.assertEqual(os.listdir(self.store), [])

    def test_server_errors_are_tried_again(self):
        self.assert_pulled(self.pull("/error/m.gguf"))

    def test_it_gives_up_in_the_end(self):
        self.assert_failed(self.pull("/dead/m.gguf", "--retries", "2"), "answers 503", "gave up after 3 tries")

    def test_missing_is_not_retried(self):
        self.assert_failed(self.pull("/missing/m.gguf"), "/missing/m.gguf: the server has no such file (404)")
        self.assertEqual(len(self.server.requests), 1)
        self.assertEqual(os.listdir(self.store), [])

    def test_no_server(self):
        self.assert_failed(self.pull("http://127.0.0.1:1/m.gguf", "--retries", "1"), "connection lost", "after 2 tries")
        self.assertEqual(os.listdir(self.store), [])

    def test_a_host_that_nobody_knows_fails_fast(self):
        done = self.pull("http://nowhere.invalid/m.gguf")
        self.assert_failed(done, "nowhere.invalid", "gave up after 2 tries")
        self.assertEqual(os.listdir(self.store), [])


    def test_redirects_and_the_hubs_checksum(self):
        done = self.pull("/redirect/m.gguf", "--json")
        self.assert_pulled(done)
        self.assertEqual(json.loads(done.stdout)["files"][0]["sha256"], SHA256)

    def test_redirect_loop_fails(self):
        self.assert_failed(self.pull("/loop/m.gguf", "--retries", "1"), "/loop/m.gguf")

    def test_hub_names(self):
        self.assert_pulled(self.pull("hf:owner/repo/m.gguf"), name="owner/repo/m.gguf")
        self.assertEqual(self.server.requests[0][0], "/owner/repo/resolve/main/m.gguf")

    def test_gated_models_need_the_token(self):
        done = self.pull("hf:gated/repo/m.gguf")
        self.assert_failed(done, "(401)", "HF_TOKEN")
        self.assert_pulled(self.pull("hf:gated/repo/m.gguf", HF_TOKEN="token"), name="gated/repo/m.gguf")

    def test_the_token_goes_to_the_hub_only(self):
        self.assert_pulled(self.pull("/plain/m.gguf", HF_TOKEN="token"))
        self.assertNotIn("Authorization", self.server.requests[0][1])

    def test_split_models_are_fetched_whole(self):
        self.assertEqual(self.pull("/plain/big-00002-of-00003.gguf").returncode, 0)
        self.assertEqual(sorted(os.listdir(self.store)), [f"big-0000{i}-of-00003.gguf" for i in (1, 2, 3)])

    def test_no_room_is_said_before_anything_is_fetched(self):
        self.assert_failed(self.pull("/huge/m.gguf"), "bytes are needed")

    def test_catalogue_names(self):
        catalogue = os.path.join(self.store, "catalogue.json")
        entry = {"source": self.base + "/drop/m.gguf", "sha256": SHA256, "size": len(BODY), "licence": "none"}
        with open(catalogue, "w", encoding="utf-8") as file:
            json.dump({"models": {"tiny": entry}}, file)
        self.env["STOKE_CATALOGUE"] = catalogue
        inspect = subprocess.run([STOKE, "inspect", "tiny"], env=self.env, capture_output=True, text=True, timeout=60)
        self.assertEqual(inspect.returncode, 1)
        self.assertIn("stoke pull tiny", inspect.stderr)
        done = self.pull("tiny")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("no checksum", done.stderr)
        listed = subprocess.run([STOKE, "list", "--json"], env=self.env, capture_output=True, text=True, timeout=60)
        path = os.path.join(self.store, "m.gguf")
        self.assertEqual(json.loads(listed.stdout), {"folder": self.store, "models": [
            {"name": "tiny", "path": path, "bytes": len(BODY), "files": 1}]})
        for name, says in (("tin", "there is tiny"), ("small", "neither a file here nor a name")):
            unknown = subprocess.run([STOKE, "run", name], env=self.env, capture_output=True, text=True, timeout=60)
            self.assertEqual(unknown.returncode, 1)
            self.assertIn(says, unknown.stderr)
            self.assertIn("stoke pull --list", unknown.stderr)
        failed = self.pull("tinier")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("known are tiny", failed.stderr)

    def test_the_demos_model_has_its_short_name(self):
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        if not os.path.exists(os.path.join(root, "models/SmolLM2-135M-Instruct.Q4_1.gguf")):
            self.skipTest("the real model is not here")
        fetch = [os.path.join(root, "scripts/fetch_model"), "--store"]
        subprocess.run(fetch, env=self.env, stdout=subprocess.DEVNULL, check=True, timeout=60)
        command = [STOKE, "pull", "smollm2-135m", "--json"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        self.assertTrue(found["path"].startswith(self.store))
        self.assertEqual(self.server.requests, [])  # nothing was fetched: checksum and place are the catalogue's

    def test_interrupted_and_resumed(self):
        command = [STOKE, "pull", self.base + "/slow/m.gguf", "--retry-wait", "20"]
        with subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            part = os.path.join(self.store, "m.gguf.part")
            deadline = time.time() + 20
            while time.time() < deadline and not (os.path.exists(part) and os.path.getsize(part) >= 400_000):
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
            self.assertEqual(process.returncode, 130)
        done = self.pull("/slow/m.gguf", "--json")
        self.assert_pulled(done)
        self.assertGreater(json.loads(done.stdout)["files"][0]["bytes_resumed"], 0)
        self.assertEqual(json.loads(done.stdout)["files"][0]["sha256"], SHA256)  # also of what came earlier

    def test_wrong_usage(self):
        self.assertEqual(subprocess.run([STOKE, "pull"], capture_output=True, timeout=20).returncode, 2)
        self.assert_failed(self.pull("hf:owner/repo"), "write hf:owner/repo/file")
        self.assert_failed(self.pull("/plain/m.gguf", "--sha256", "12"), "is no SHA-256")


if __name__ == "__main__":
    STOKE = os.path.abspath(sys.argv.pop(1))
    unittest.main()
