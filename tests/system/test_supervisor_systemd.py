"""The systemd unit, and the manual page."""
import glob
import os
import shutil
import subprocess
import tempfile
import unittest

from shanghai import BIN

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
UNIT = os.path.join(SOURCE, "etc", "systemd", "shanghai@.service")


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class Unit(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="sh", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.root)
        for folder in ("etc/systemd/system", "usr/lib/systemd/system", "usr/bin", "bin"):
            os.makedirs(os.path.join(self.root, folder))
        shutil.copy(UNIT, os.path.join(self.root, "etc/systemd/system"))
        shutil.copy(os.path.join(BIN, "shanghaid"), os.path.join(self.root, "usr/bin"))
        shutil.copy("/bin/kill", os.path.join(self.root, "bin"))
        for kind in ("target", "slice", "mount"):  # what every unit leans on
            for unit in glob.glob(f"/usr/lib/systemd/system/*.{kind}"):
                shutil.copy(unit, os.path.join(self.root, "usr/lib/systemd/system"))

    def verify(self):
        done = subprocess.run(["systemd-analyze", "verify", "--root", self.root, "shanghai@n1.service"],
                              capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, (done.stdout + done.stderr).replace(self.root, "")

    def test_verify_is_clean_once_installed(self):
        self.assertEqual(self.verify(), (0, ""))

    def test_verify_would_tell(self):
        os.unlink(os.path.join(self.root, "usr/bin/shanghaid"))
        self.assertIn("/usr/bin/shanghaid is not executable", self.verify()[1])

    def test_unit_says_what_the_supervisor_speaks(self):
        with open(UNIT, encoding="ascii") as file:
            lines = file.read().splitlines()
        for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=30s", "Restart=on-failure",
                     "RestartPreventExitStatus=2 78", "KillMode=mixed", "OOMPolicy=continue"):
            self.assertIn(line, lines)


@unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed")
class Manual(unittest.TestCase):
    def test_manual_page_is_clean(self):
        page = os.path.join(SOURCE, "supervisor", "shanghaid.8")
        done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, timeout=60,
                              check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))


if __name__ == "__main__":
    unittest.main()
