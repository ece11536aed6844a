// Helper threads that share the members of an ensemble with the thread that asks.
#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace ssql {

class Crew {
   public:
    // Call work(0) .. work(count - 1), on up to `threads` threads; return when all are done. Whoever is free takes the
    // next one, so that a helper that the system does not run is not waited for unless it has begun.
    template <class Work>
    static void run(std::int64_t count, std::int64_t threads, const Work& work) {
        static Crew* crew = new Crew;  // never deleted: its threads end with the process
        std::unique_lock<std::mutex> one_at_a_time(crew->busy_, std::defer_lock);
        // Threads do not survive fork, and the lock may be another thread's.
        if (count < 2 || threads < 2 || getpid() != crew->owner_ || !one_at_a_time.try_lock()) {
            for (std::int64_t i = 0; i < count; i++) work(i);
            return;
        }
        crew->hire((threads < count ? threads : count) - 1);
        crew->share(count, [](const void* context, std::int64_t i) { (*static_cast<const Work*>(context))(i); }, &work);
    }

    // Call work(phase, member, part) for all; a part may need all parts of its member's phases before.
    template <class Work>
    static void run_phases(std::int64_t phases, std::int64_t members, std::int64_t parts, std::int64_t threads,
                           const Work& work) {
        if (parts == 1)
            return run(members, threads, [&](std::int64_t m) {
                for (std::int64_t phase = 0; phase < phases; phase++) work(phase, m, 0);
            });
        for (std::int64_t phase = 0; phase < phases; phase++)
            run(members * parts, threads, [&](std::int64_t i) { work(phase, i / parts, i % parts); });
    }

   private:
    using Call = void (*)(const void*, std::int64_t);

    void hire(std::int64_t helpers) {
        for (; hired_ < helpers; hired_++) std::thread([this] { help(); }).detach();
    }

    void share(std::int64_t count, Call call, const void* context) {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            call_ = call, context_ = context, next_ = 0, count_ = count;
            done_.store(0);
            posted_.fetch_add(1);
        }
        wake_.notify_all();
        while (take()) {
        }
        while (done_.load() < count) std::this_thread::yield();
    }

    // Do the next piece of work, if there is one.
    bool take() {
        std::unique_lock<std::mutex> guard(lock_);
        if (next_ >= count_) return false;
        const std::int64_t i = next_++;
        const Call call = call_;
        const void* context = context_;
        guard.unlock();
        call(context, i);
        done_.fetch_add(1);
        return true;
    }

    void help() {
        std::uint64_t seen = 0;
        while (true) {
            // Products come in quick succession: waking up would take as long as one of them.
            for (int spin = 0; spin < SPINS && posted_.load() == seen; spin++) __builtin_ia32_pause();
            if (posted_.load() == seen) {
                std::unique_lock<std::mutex> guard(lock_);
                wake_.wait(guard, [&] { return posted_.load() != seen; });
            }
            seen = posted_.load();
            while (take()) {
            }
        }
    }

    static constexpr int SPINS = 10000;  // some 0.2 ms

    const pid_t owner_ = getpid();
    std::mutex busy_, lock_;
    std::condition_variable wake_;
    std::atomic<std::uint64_t> posted_{0};
    std::atomic<std::int64_t> done_{0};
    std::int64_t hired_ = 0, next_ = 0, count_ = 0;
    Call call_ = nullptr;
    const void* context_ = nullptr;
};

}  // namespace ssql
